"""Training of the fine network of RANSAC-Flow."""
