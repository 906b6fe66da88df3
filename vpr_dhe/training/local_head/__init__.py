"""Training of local heads."""

from vpr_dhe.training.local_head.stage import LocalHeadSettings, LocalHeadStage

__all__ = ["LocalHeadSettings", "LocalHeadStage"]
