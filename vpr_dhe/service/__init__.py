"""A localizer behind HTTP."""
