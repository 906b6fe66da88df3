"""Experimental estimators for image pairs of two sensors."""
