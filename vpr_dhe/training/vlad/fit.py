"""Resumable fit of a VLAD for any model, from a folder of unlabelled images to a model file."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vpr_dhe.errors import BadInputError, ModelError, VprDheError
from vpr_dhe.images.listing import list_images
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.names import JOINT_VLAD, SIFT_VLAD
from vpr_dhe.models.weights_file import require_weights_path
from vpr_dhe.records import StartProgress, StrPath, without_progress
from vpr_dhe.training.stage import Fact
from vpr_dhe.training.vlad.network import fit_network_vlad
from vpr_dhe.training.vlad.partial_results import PartialResults
from vpr_dhe.training.vlad.settings import JOINT_SETTINGS, NETWORK_SETTINGS, SIFT_VLAD_SETTINGS, VladSettings
from vpr_dhe.training.vlad.sift import fit_sift_vlad

AGGREGATORS = ("vlad", "netvlad", JOINT_VLAD)
MAX_IMAGES = 2000
"""Default maximum number of images."""


@dataclass(frozen=True)
class VladInfo:
    """Name, licence and training data of the result; by default, the model's name and aggregator, and its licence."""

    training_data: str
    name: str | None = None
    licence: str | None = None


class FittedVlad(NamedTuple):
    """Fitted model, and the number of images that it was fitted to."""

    model: ModelFile
    images: int


def default_settings(model: ModelFile, aggregator: str | None = None) -> VladSettings:
    """Return the default settings for fitting an aggregator to a model; None is the model's default aggregator."""
    if aggregator == JOINT_VLAD:
        return JOINT_SETTINGS
    settings = SIFT_VLAD_SETTINGS if model.architecture.backbone == SIFT_VLAD else NETWORK_SETTINGS
    return settings if aggregator is None else replace(settings, aggregator=aggregator)


def fit_vlad(
    model: ModelFile,
    images: StrPath,
    out: StrPath,
    settings: VladSettings,
    info: VladInfo,
    device: torch.device,
    *,
    max_images: int = MAX_IMAGES,
    half: bool = False,
    start_progress: StartProgress = without_progress,
) -> FittedVlad:
    """Fit vocabulary and projection of a VLAD to unlabelled images, and write the model.

    An interrupted fit leaves the folder `OUT.partial`; the same call resumes it.

    Args:
        model: any network, whose aggregator is replaced, or `sift-vlad`, for which all arrays are fitted.
        images: folder of images; subfolders are included.
        out: model file to write.
        settings: sizes of the VLAD and of its training.
        info: name, licence and training data of the result.
        device: device of the network.
        max_images: maximum number of images; larger folders are sampled.
        half: whether to store the weights of a network, except its aggregator, in half precision; the arrays of
            `sift-vlad` always are.
        start_progress: called with the name and length of each pass over the images.

    Raises:
        BadInputError: if the folder contains no images, there are not more images than dimensions, the VLAD is shorter
            than the projected vector, or `OUT.partial` contains a fit with other settings.
        ModelError: if `out` is not a valid name for a model file, or the aggregator is unknown or not for `sift-vlad`.
        ImageError: if an image cannot be read.
    """
    images, out = Path(images), Path(out)
    require_weights_path(out)
    _require_aggregator(model, settings)
    names = _sampled(list_images(images), max_images, settings.seed)
    _require_enough(len(names), settings)
    paths = [images / name for name in names]
    partial_results = PartialResults(out, _facts(model, images, names, settings))
    try:
        if model.architecture.backbone == SIFT_VLAD:
            fitted = fit_sift_vlad(paths, settings, partial_results, start_progress)
        else:
            fitted = fit_network_vlad(model, paths, settings, partial_results, device, start_progress)
    except VprDheError:
        partial_results.remove()  # the command must be repeated with other settings or images
        raise
    described = _with_metadata(fitted, model, info, half=half)
    described.save(out)
    partial_results.remove()
    return FittedVlad(described, len(paths))


def _with_metadata(fitted: ModelFile, model: ModelFile, info: VladInfo, *, half: bool) -> ModelFile:
    """Add name, licence and training data to a fitted model."""
    named = replace(fitted, name=info.name or fitted.name, licence=info.licence or fitted.licence)
    if model.architecture.backbone == SIFT_VLAD:
        return replace(named, training_data=info.training_data)
    description = f"{model.training_data}; vocabulary and projection: {info.training_data}"
    described = replace(named, training_data=description)
    if not half:
        return described
    # Logits of a soft assignment exceed the range of half precision; the projection is stored in it in any case.
    return replace(described, tensors={**described.in_half_precision().tensors, **_aggregator_of(described)})


def _aggregator_of(model: ModelFile) -> dict[str, Tensor]:
    return {name: value for name, value in model.tensors.items() if name.startswith("aggregator.")}


def _require_aggregator(model: ModelFile, settings: VladSettings) -> None:
    if settings.aggregator not in AGGREGATORS:
        raise ModelError(f"aggregator {settings.aggregator!r} is not a VLAD; choose one of {', '.join(AGGREGATORS)}")
    if model.architecture.backbone == SIFT_VLAD and settings.aggregator != "vlad":
        raise ModelError(f"{SIFT_VLAD} has no soft assignment; leave out --aggregator {settings.aggregator}")
    if settings.aggregator == JOINT_VLAD and model.architecture.local_head is None:
        raise ModelError(
            f"model {model.name!r} has no local head, which {JOINT_VLAD} copies; train one by `vpr-dhe train local`"
        )


def _sampled(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Draw a sample of at most `count` names, in their order."""
    if len(names) <= count:
        return list(names)
    chosen = np.random.default_rng((seed, 2)).choice(len(names), count, replace=False)
    return [names[index] for index in sorted(map(int, chosen))]


def _require_enough(images: int, settings: VladSettings) -> None:
    if images <= settings.dimension:
        raise BadInputError(
            f"{images} images are too few: a projection to {settings.dimension} dimensions needs more images than "
            "dimensions; give more images or a smaller --dimension"
        )


def _facts(model: ModelFile, images: Path, names: Sequence[str], settings: VladSettings) -> dict[str, Fact]:
    """Everything that determines the result, apart from rounding errors of the device."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{(images / name).stat().st_size}\0".encode(errors="surrogateescape"))
    return {"model": model.extractor_fingerprint, "images": digest.hexdigest()[:12], **asdict(settings)}
