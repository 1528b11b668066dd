"""What carries out the steps of an epoch."""
