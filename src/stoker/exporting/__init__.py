"""A run's model as a file for others: written, loaded again in a fresh process, and compared, before it is there."""
