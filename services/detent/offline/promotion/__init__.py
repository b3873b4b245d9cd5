"""Turn a training run and its back-tests into evidence, and evidence into a promotion."""
