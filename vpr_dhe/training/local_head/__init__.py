"""Training of local heads."""

from vpr_dhe.training.local_head.stage import LocalHeadSettings, LocalHeadStage, head_of

__all__ = ["LocalHeadSettings", "LocalHeadStage", "head_of"]
