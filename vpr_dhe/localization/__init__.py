"""From one photo to places: retrieval, re-ranking, calibration and position fusion."""
