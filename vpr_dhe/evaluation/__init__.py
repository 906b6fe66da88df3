"""Metrics and the runs that compute them."""
