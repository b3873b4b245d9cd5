"""Hold the generated messages of the Open Inference Protocol, written by `make protos`.

They register under `package inference`, as the published clients' own do: only a server imports
them, so that a strategist may use such a client in the same process.
"""
