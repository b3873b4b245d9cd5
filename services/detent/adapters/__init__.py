"""Layer 2: the real sides of the ports (stores, runtimes, remote services, telemetry)."""
