"""Names of verifiers, importable without torch."""

DEFAULT_VERIFIER = "magsac"

NO_VERIFIER = "none"
"""Retrieval without verification; no estimator may have this name."""
