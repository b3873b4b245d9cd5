"""The inference process: one pinned artifact, verified, answering in batches."""
