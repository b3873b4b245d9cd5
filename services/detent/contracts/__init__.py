"""Layer 0: what every process agrees on.

Frozen domain types that are valid by construction, the error tree, units, canonical
JSON with its hashes, and the two codecs (protobuf and JSON). Imports nothing of ours
but the generated `detent.api`.
"""
