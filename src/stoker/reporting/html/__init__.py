"""The HTML report: one file that says all about some runs, and needs nothing else."""
