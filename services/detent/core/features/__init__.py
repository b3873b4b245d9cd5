"""Turns bars, quotes and books into snapshots and snapshots into model inputs.

Before it stands the wire, after it the model runtime and `core/signals`. Read in this order:
`engine`, `history`, `snapshot`, `feature_set`, `feature_values` and `transforms`, `past_rows`,
`rows`, `model_input`; for the order book `book`, `book_history`, `book_values`; then `market_state`
(live, many symbols), `offline_rows` (training, one symbol), and `rolling` with `row_hashes`,
which give the rows of `offline_rows` for a whole series at once. `shipped_sets` holds sets under
names of their own.
"""
