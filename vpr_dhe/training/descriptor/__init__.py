"""Training of global descriptors."""
