"""What a run has learned, as figures and as a page: `alexnet show RUN`."""
