"""Names of models that need no import of torch."""

DEFAULT_MODEL = "sift-vlad"
