"""Whole jobs: from a source to a run directory, and from a run to predictions."""
