"""The parts of the synthetic town: its plans and layout, what they look like, and how a view is drawn."""
