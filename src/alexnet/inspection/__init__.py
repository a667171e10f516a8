"""Tools for an engineer with a trained classifier: sorting of files, comparison of runs, cross-validation."""
