"""Be the `detent` command: for the operator, the quant and the auditor.

It is the outermost composition root: commands import servers and offline code only when they
run, so that a strategist's installation stays as light as the client.
"""
