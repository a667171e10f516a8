"""Weights that others trained: one module a foreign format."""
