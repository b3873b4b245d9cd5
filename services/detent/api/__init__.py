"""Hold the generated wire contract; see `protos/`."""
