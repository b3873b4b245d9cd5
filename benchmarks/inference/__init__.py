"""Measure the inference service beside what else could serve the same graph."""
