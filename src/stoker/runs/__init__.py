"""The run directory: what is kept of a training, and how it is read again."""
