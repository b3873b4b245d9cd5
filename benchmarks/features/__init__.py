"""Measure what a row of features costs: offline beside pandas, served beside an echo and Redis."""
