"""Students: a smaller backbone with a projection to the teacher's tokens, and the teacher's aggregator and head."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.backbones.projected import PREFIX, projected_name
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.positional_embedding import resize_positional_embedding
from vpr_dhe.records import Grid
from vpr_dhe.runtime.seeding import seeded

_AGGREGATORS = ("vlad", "netvlad", "joint-vlad")
"""Aggregators that scale cells to unit norm, so that a student must learn only the direction of a token."""
_POSITIONS = "positional_emb"
_STRIDE_PX = 16


def student_of(teacher: ModelFile, start: ModelFile, seed: int) -> ModelFile:
    """Make the model of a student, with the input size of its teacher.

    Args:
        teacher: a network with a VLAD aggregator.
        start: model that provides the initial backbone, or a student of the same teacher.
        seed: seed of the projection, unless `start` has one of the same width.

    Raises:
        ModelError: if the teacher has another aggregator, or the network does not support the teacher's input size.
    """
    if teacher.architecture.aggregator not in _AGGREGATORS:
        raise ModelError(
            f"{teacher.name} has the aggregator {teacher.architecture.aggregator!r}; choose a teacher with one of "
            f"{', '.join(_AGGREGATORS)}, such as a model from `vpr-dhe train vlad`"
        )
    dimension = _token_dimension(teacher)
    is_student = start.architecture.backbone.startswith(PREFIX)
    name = start.architecture.backbone if is_student else projected_name(dimension, start.architecture.backbone)
    with seeded(seed):
        backbone = build_backbone(name, blocks=start.architecture.blocks, input_size=teacher.preprocessing.size)
    if backbone.dimension != dimension:
        raise ModelError(f"{start.name} has tokens of {backbone.dimension} dimensions, its teacher of {dimension}")
    known = start.part("backbone")
    known = known if is_student else {f"backbone.{tensor}": value for tensor, value in known.items()}
    state = {**backbone.state_dict(), **_fitted(known, _grid(start), _grid(teacher))}
    architecture = replace(teacher.architecture, backbone=name, blocks=start.architecture.blocks, head=None)
    parts = {"backbone": state, "aggregator": teacher.part("aggregator"), "local_head": teacher.part("local_head")}
    return ModelFile(
        name=start.name,
        architecture=architecture,
        preprocessing=replace(
            start.preprocessing, width=teacher.preprocessing.width, height=teacher.preprocessing.height
        ),
        licence=teacher.licence,
        training_data=start.training_data if is_student else _with_metadata(start, teacher),
        tensors={f"{part}.{tensor}": value for part, tensors in parts.items() for tensor, value in tensors.items()},
    )


def _with_metadata(start: ModelFile, teacher: ModelFile) -> str:
    return f"{start.training_data}; aggregator and local head: those of {teacher.name} ({teacher.training_data})"


def _token_dimension(model: ModelFile) -> int:
    architecture, size = model.architecture, model.preprocessing.size
    return build_backbone(architecture.backbone, blocks=architecture.blocks, input_size=size).dimension


def _fitted(state: Mapping[str, Tensor], source: Grid, target: Grid) -> dict[str, Tensor]:
    """Copy of a state in single precision, with the positional embedding of a CCT resized to another grid."""
    return {
        name: resize_positional_embedding(value.float(), source, target) if name.endswith(_POSITIONS) else value.float()
        for name, value in state.items()
    }


def _grid(model: ModelFile) -> Grid:
    return Grid(model.preprocessing.height // _STRIDE_PX, model.preprocessing.width // _STRIDE_PX)
