"""Localization of one image: retrieval, re-ranking, calibration and position fusion."""
