"""Geographic positions: distances, planes, EXIF and position tables."""
