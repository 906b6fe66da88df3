"""Localization of sequences: Bayes filter over places, motion models, live streams, memory of the frames seen."""
