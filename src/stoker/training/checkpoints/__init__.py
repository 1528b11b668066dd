"""Checkpoints: all that the next step depends on, kept on the disk, so that a training goes on to the same bits."""
