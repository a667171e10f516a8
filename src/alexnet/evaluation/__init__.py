"""Evaluation: metrics, test views and ensembles of trained networks."""
