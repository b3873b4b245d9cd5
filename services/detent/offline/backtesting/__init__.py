"""Back-test: the live core over bars that are already there."""
