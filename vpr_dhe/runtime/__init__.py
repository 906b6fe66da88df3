"""Threads, prefetching, CPU features, durable files, image files and optional extras."""
