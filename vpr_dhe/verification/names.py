"""Names of verifiers that need no import of torch."""

DEFAULT_VERIFIER = "magsac"

NO_VERIFIER = "none"
"""Retrieval without verification: the one name that no estimator may have."""
