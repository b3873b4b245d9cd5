"""Stage 2: model output to a calibrated probability, the proxy beside it, and one magnitude.

Before it: `core/features` and the runtime. After it: `core/rollout` and `core/policy`, to
which only `signal_strength_bps` crosses.
"""
