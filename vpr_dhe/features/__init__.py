"""Extractors: from images to a global descriptor and a dense local map."""
