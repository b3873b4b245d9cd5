"""Computes the values of features: `bar_values` from bars, `series` from other features.

Only operations that IEEE 754 rounds correctly are used (+ - * /, square root, and the exact
sum of `math.fsum`), so that every machine gets the same bits; no logarithm, no exponential.
"""
