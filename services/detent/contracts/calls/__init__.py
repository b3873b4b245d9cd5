"""Hold the request and response of every call, one module per service."""
