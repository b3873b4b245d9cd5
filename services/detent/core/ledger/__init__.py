"""Stage 5: one canonical record per bar, chained by hash.

Before it: `core/policy`. After it: the store adapter.
"""
