"""Measures what spans and log lines cost a call."""
