"""Hold the steps by which a ledger's database reaches the form that `ledger_tables` declares.

Steps only add: a ledger is never taken back to a form that could not hold what it recorded.
"""
