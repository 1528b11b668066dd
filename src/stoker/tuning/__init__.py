"""Studies: spaces, samplers and pruners, storage, workers, the refit of the best trial."""
