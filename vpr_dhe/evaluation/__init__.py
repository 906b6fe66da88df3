"""Metrics of retrieval, alignment and calibration, and the runs that compute them."""
