"""Measure what market data and model inputs cost, beside bare forms of the same."""
