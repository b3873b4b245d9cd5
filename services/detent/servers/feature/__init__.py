"""The feature process: takes market data, serves model inputs as of an instant."""
