"""Layer 1: what decides. Pure functions over values; no clock, no input, no output.

The folders stand in the order in which data flows: features, signals, rollout, policy,
ledger; evaluation judges the result.
"""
