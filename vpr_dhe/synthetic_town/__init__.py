"""Synthetic town: layout, appearance and rendering of a procedural town with exact camera poses."""
