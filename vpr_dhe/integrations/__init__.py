"""Integrations with other programs, which are needed only at run time."""
