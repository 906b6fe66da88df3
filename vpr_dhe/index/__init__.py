"""Index of images: vectors in FAISS, local maps on disk, and a manifest of immutable segments."""
