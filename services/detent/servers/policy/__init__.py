"""Decide every bar: gates, signal, policy, record."""
