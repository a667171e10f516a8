"""What is timed on this machine, and against whom: `alexnet bench`."""
