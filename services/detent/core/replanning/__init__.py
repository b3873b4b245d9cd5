"""Beside the stages: when a plan may be replaced, what of it counts, and what is counted.

Pure: instants are arguments, in data time. Nothing here decides a weight.
"""
