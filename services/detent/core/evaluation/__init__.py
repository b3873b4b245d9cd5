"""Stage 6: how good the probabilities were, in proper scores and in calibration.

Before it: outcomes joined with what was said. After it: reports and promotion gates. Every
metric's name carries its definition, because the same word has several in use.
"""
