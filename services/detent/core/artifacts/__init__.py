"""Judge artifacts by their manifests."""
