"""Hold version 1 of the generated wire contract, written by `make protos`."""
