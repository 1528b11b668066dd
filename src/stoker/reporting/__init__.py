"""Pictures of a run, statistics, and the HTML report."""
