"""Extractors of a global descriptor and a dense local map per image."""
