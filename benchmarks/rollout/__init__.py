"""Measures how soon a canary that does worse is found, and how often a healthy one is stopped."""
