"""Recurrent layers as a loop that is one operator, so that a graph does not grow with the length of its sequences."""
