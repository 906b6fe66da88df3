"""Distillation of a teacher network into a smaller student."""

from vpr_dhe.training.distillation.stage import DistillationSettings, DistillationStage
from vpr_dhe.training.distillation.student import student_of
from vpr_dhe.training.distillation.views import open_views

__all__ = ["DistillationSettings", "DistillationStage", "open_views", "student_of"]
