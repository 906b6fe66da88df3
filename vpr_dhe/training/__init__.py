"""Training of models: one loop, sources of pairs, and one folder per method."""
