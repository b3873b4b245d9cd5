"""Sweep settings of a policy over windows that walk forward, every trial counted."""
