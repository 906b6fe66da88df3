"""Names of models, importable without torch."""

DEFAULT_MODEL = "sift-vlad"
