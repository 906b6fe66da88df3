"""Adaptation of an index's vectors to its own map: centring, whitening, and correction of hubs."""
