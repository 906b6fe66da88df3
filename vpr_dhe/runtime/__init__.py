"""Threads, prefetching, CPU features, durable files and optional extras."""
