"""Turns bars, quotes and books into snapshots and snapshots into model inputs.

Before it stands the wire, after it the model runtime and `core/signals`. Read in this order:
`engine`, `history`, `snapshot`, `feature_spec`, `feature_set`, `feature_values` and `transforms`,
`past_rows`, `rows`, `model_input`; for the order book `book`, `book_history`, `book_values`; then
`market_state` (live, many symbols) and `offline_rows` (training, one symbol). `rolling` gives the
rows of `offline_rows` for a whole series at once: `bar_columns`, `exact_sums`, `mean_ranges`,
`rolled_values`, `row_hashes`; `decisive_quotes` gives the quotes that a series of bars needs.
`shipped_sets` holds sets under names of their own.
"""
