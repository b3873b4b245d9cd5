"""Hold one module per step."""
