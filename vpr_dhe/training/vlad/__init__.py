"""Vocabulary and projection of a VLAD, fitted to unlabelled photos within minutes, for any model."""
