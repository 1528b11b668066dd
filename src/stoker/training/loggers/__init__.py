"""Loggers: callbacks that send a training's numbers to a tool that keeps and draws them."""
