"""A run behind HTTP: predictions, the Open Inference Protocol, measures, and a small page."""
