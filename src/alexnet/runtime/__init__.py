"""Base of every step: errors, atomic files, progress, devices and precision, provenance."""
