"""Walk-forward training: folds that share no outcome, candidates, choice, the record of a run."""
