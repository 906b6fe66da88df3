"""Localization of a sequence of frames: belief over places, motion between frames, live sources, memory of the way."""
