"""Text, JSON, CSV and hloc output."""
