"""Timings of this package on this machine against named peers: `alexnet bench`."""
