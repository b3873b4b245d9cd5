"""Stage 4: a permitted magnitude becomes a target weight, in integers.

Before it: `core/rollout`. After it: `core/ledger`. Sees `signal_strength_bps` and nothing
else of a signal: no feature, no probability, no direction.
"""
