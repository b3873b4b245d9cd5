"""Layer 2: the gRPC plumbing that servers and clients share.

Status mapping, deadlines, tracing, health, drain. Handlers above never see grpcio: they get
a `Call` of ours and domain values, so that the transport can be replaced without them.
"""
