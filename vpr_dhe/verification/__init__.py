"""Geometric verification of candidates by homographies."""
