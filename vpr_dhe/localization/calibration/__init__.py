"""From scores to probabilities: how likely it is that the best match of a query shows its place."""
