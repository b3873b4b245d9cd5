"""Serve gRPC over HTTP/2 on one event loop, without a change of threads (ADR 0024).

Reading order: `frames` and `heads` and `messages` are pure; `stream` is one call, `connection`
one peer, `listener` all of them.
"""
