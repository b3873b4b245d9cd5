"""Bring artifacts of the three earlier forms into ours: `detent artifact import`."""
