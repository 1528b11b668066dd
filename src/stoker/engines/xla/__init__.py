"""From a captured graph of ATen operators to a program for XLA, through JAX.

Importing this package imports no JAX; its modules do. ``interpret`` is the entrance.
"""
