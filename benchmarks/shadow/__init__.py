"""What a shadow costs the decisions that it stands behind."""
