"""Measure Detent beside something bare, in one run; each folder has one command."""
