"""Fitting of calibrations: labelled queries become examples, and examples a calibration."""
