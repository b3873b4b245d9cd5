"""Measure the back-test beside vectorbt, bt and backtesting.py."""
