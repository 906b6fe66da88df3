"""Recordings: frames with times and positions that lie in one file, as a robot or a camera wrote it."""
