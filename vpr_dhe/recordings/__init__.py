"""Readers of recordings (bags and videos): frames with times and positions."""
