"""Measure policy: the ledger that its decisions go to."""
