"""The run folder: recipe, configuration, weights, metrics and checkpoint."""
