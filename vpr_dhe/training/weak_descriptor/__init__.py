"""Training of the patch descriptor for pairs of two sensors."""
