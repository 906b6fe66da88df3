"""Learning what models need from images."""
