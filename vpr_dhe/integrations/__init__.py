"""Integrations with other programs: one small file each, which needs that program only when it runs there."""
