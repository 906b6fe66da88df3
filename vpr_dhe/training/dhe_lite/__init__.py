"""Training of the dhe-lite head."""

from vpr_dhe.training.dhe_lite.settings import DheLiteSettings
from vpr_dhe.training.dhe_lite.stage import DheLiteStage

__all__ = ["DheLiteSettings", "DheLiteStage"]
