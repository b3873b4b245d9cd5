"""Measure what one decision and one batch cost, beside a bare echo and a bare commit."""
