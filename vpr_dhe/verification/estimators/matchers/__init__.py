"""Matchers of other packages: their matches, our homographies and score."""
