"""Training of the DHE head."""
