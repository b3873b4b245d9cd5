"""Measure what a row of features costs offline, beside a plain pandas implementation."""
