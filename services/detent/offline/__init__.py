"""Layer 3: data files, features, training, building of artifacts. Never imported by a server."""
