"""Checks before the first step: what goes silently wrong in a training loop, found before it costs an hour."""
