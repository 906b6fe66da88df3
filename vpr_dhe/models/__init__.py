"""Model files, the catalogue of models, and the import of published checkpoints."""
