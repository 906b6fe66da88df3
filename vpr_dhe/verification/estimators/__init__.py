"""Homography estimators, one file or folder per method."""
