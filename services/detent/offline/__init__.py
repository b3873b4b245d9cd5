"""Layer 3: data files, training, building of artifacts. Never imported by a server."""
