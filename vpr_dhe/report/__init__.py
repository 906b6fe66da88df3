"""Results for people and for other programs: text formats and pictures."""
