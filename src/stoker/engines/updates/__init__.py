"""Optimizers' updates as pure functions of tensors."""
