"""From batches to a run folder."""
