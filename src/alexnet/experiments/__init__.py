"""Experiments that a command repeats, each with its results in a file of its own."""
