"""Results for people and other programs: text formats, HTML reports and pictures."""
