"""What other programs load or run: each file is small, and needs that program only when it runs in it."""
