"""Metrics by task and by name, on torchmetrics."""
