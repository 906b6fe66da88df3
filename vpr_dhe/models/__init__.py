"""Model files, the catalogue of models, and the import of published checkpoints.

The networks are defined in `features` (backbones, aggregators) and `verification` (estimators).
"""
