"""Joint training of extractor and DHE head."""
