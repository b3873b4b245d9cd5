"""Layer 3: one folder per process, each with its settings, handler and main."""
