"""Pictures of matches and alignments."""
