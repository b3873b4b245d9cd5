"""Stage 3: the gates that may refuse the model, each with its reason.

Before it: `core/signals`. After it: `core/policy`.
"""
