"""Calibration: probabilities that the best match of a query shows its place."""
