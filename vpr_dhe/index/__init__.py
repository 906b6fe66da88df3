"""The database of places: vectors in FAISS, local maps on disk, a manifest of immutable segments."""
