"""Bring artifacts from where they lie, and models from other registries into ours."""
