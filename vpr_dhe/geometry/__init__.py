"""Geometry as tensor operations: coordinates, homographies, warping, matching, correlation."""
