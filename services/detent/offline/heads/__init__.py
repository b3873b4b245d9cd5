"""Trainers of the heads beside direction, and the discovery of rules: all of them offline."""
