"""Model files, the catalogue of models, and the import of published checkpoints.

The networks themselves live in `features` (backbones, aggregators) and `verification` (estimators).
"""
