"""Stage 5: one canonical record per bar, chained by hash, and what came of it.

Before it: `core/policy`. After it: the store adapter; fills and outcomes come back from there.
"""
