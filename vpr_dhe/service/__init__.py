"""HTTP service over a localizer."""
