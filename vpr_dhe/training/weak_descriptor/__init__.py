"""Training of patch descriptors for images of two sensors."""
