"""Positions on the earth: distances, planes, EXIF and position tables."""
