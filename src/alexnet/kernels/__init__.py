"""Fast forms of the response normalisations."""
