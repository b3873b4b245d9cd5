"""Serve machine-learned trading signals that scale what a trigger has already permitted."""
