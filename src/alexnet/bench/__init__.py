"""`alexnet bench`: the time and memory of each part of the package on this machine, compared with named peers."""
