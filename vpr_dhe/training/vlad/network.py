"""Fit of a VLAD of the tokens of a network, vocabulary and projection."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vpr_dhe.datasets.augmentation import random_view
from vpr_dhe.features.aggregators.joint_vlad import JointVlad, JointVladSizes
from vpr_dhe.features.aggregators.vlad import BandedVlad, NetVlad, Vlad, VladSizes, assignment_of
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.features.local_head import LocalHead, LocalHeadSizes, local_head_of
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.features.vlad import whitened
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.names import JOINT_VLAD
from vpr_dhe.records import Image, StartProgress
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.training.vlad.partial_results import PART_SIZE, PartialResults
from vpr_dhe.training.vlad.settings import VladSettings, fit_vocabulary, require_projectable
from vpr_dhe.training.whitening import projection_of

# A divisor of the size of stored parts, so that a resumed fit has the same batches.
_BATCH = 8
assert PART_SIZE % _BATCH == 0
# Bounds the memory for wide tokens.
_MAX_SAMPLED_NUMBERS = 64_000_000
# Mean ratio of the largest two weights of a soft assignment (NetVLAD, appendix A).
_RATIO = 100.0


def fit_network_vlad(
    model: ModelFile,
    paths: Sequence[Path],
    settings: VladSettings,
    partial_results: PartialResults,
    device: torch.device,
    start_progress: StartProgress,
) -> ModelFile:
    """Replace the aggregator of a network by one fitted to images; see `vpr_dhe.training.vlad.fit.fit_vlad`.

    Heads are kept, because local maps do not change; `joint-vlad` gets a copy of the local head.
    """
    head = local_head_of(model) if settings.aggregator == JOINT_VLAD else None
    cells = _Cells(model, device, head)
    require_projectable(settings, *cells.widths)

    def rows(name: str, results: Callable[[int], Iterator[np.ndarray]]) -> np.ndarray:
        return partial_results.rows(name, len(paths), results, start_progress(name, len(paths)))

    samples = rows("cells", partial(_sampled_cells, cells, paths, settings))
    fitted = partial_results.arrays("vocabulary", lambda: _fitted(samples, cells.widths, settings))
    unprojected = _aggregator(settings, fitted, head).to(device)
    vlads = rows("views", partial(_vlads_of_views, cells, unprojected, paths, settings))
    aggregator = unprojected.state_dict() | _projection(vlads, unprojected, settings)
    kept = {name: value for name, value in model.tensors.items() if not name.startswith("aggregator.")}
    learned = {f"aggregator.{name}": value.detach().cpu().clone() for name, value in aggregator.items()}
    return replace(
        model,
        name=f"{model.name.removesuffix(f'-{model.architecture.aggregator}')}-{settings.aggregator}",
        architecture=replace(model.architecture, aggregator=settings.aggregator, unit_norm=True),
        published=False,
        tensors={**kept, **learned},
    )


class _Cells:
    """Unit tokens of a model for batches of images, concatenated with the descriptors of a local head if given.

    `widths` are the dimensions of tokens and descriptors.
    """

    def __init__(self, model: ModelFile, device: torch.device, head: LocalHead | None) -> None:
        self.preprocessing = model.preprocessing
        self._extractor = NeuralExtractor(model, model.name, device)
        self._backbone = self._extractor.network.backbone
        self._head = None if head is None else head.eval().to(device)
        self.widths = (self._backbone.dimension, *([] if head is None else [head.descriptor.out_channels]))

    def unit(self, tokens: DenseTokens) -> Float[Tensor, "batch cells d"]:
        """Unit tokens, concatenated with the descriptors if there is a head."""
        parts = [torch.nn.functional.normalize(tokens.patches, dim=-1)]
        if self._head is not None:
            parts.append(self._head.cells(tokens.patches, tokens.grid)[0])
        return torch.cat(parts, dim=-1)

    def each(self, images: Sequence[Image], function: Callable[[DenseTokens], Tensor]) -> Float32[np.ndarray, "..."]:
        """Apply a function to the tokens of images and join its results."""
        return np.concatenate(in_parallel(partial(self._one_part, function), self._extractor.split(images)))

    @torch.inference_mode()
    def _one_part(self, function: Callable[[DenseTokens], Tensor], images: Sequence[Image]) -> np.ndarray:
        batch = to_network_input(images, self.preprocessing, self._extractor.device)
        layout = torch.channels_last if self._backbone.convolutional else torch.contiguous_format
        return function(self._backbone(batch.to(memory_format=layout))).cpu().numpy()


def _sampled_cells(
    cells: _Cells, paths: Sequence[Path], settings: VladSettings, first: int
) -> Iterator[Float32[np.ndarray, "samples d"]]:
    """Yield some cells of each image, of unit norm."""
    affordable = max(1, _MAX_SAMPLED_NUMBERS // (len(paths) * sum(cells.widths)))
    count = min(settings.descriptors_per_image, affordable)
    for start in range(first, len(paths), _BATCH):
        images = in_parallel(decode_named, paths[start : start + _BATCH])
        for index, one in enumerate(cells.each(images, cells.unit), start):
            random = np.random.default_rng((settings.seed, 0, index))
            yield one[random.choice(len(one), min(count, len(one)), replace=False)]


def _fitted(
    samples: Float32[np.ndarray, "samples d"], widths: Sequence[int], settings: VladSettings
) -> dict[str, np.ndarray]:
    """Fit the tensors of the aggregator before its projection."""
    if settings.aggregator != JOINT_VLAD:
        return _vocabulary(samples, settings, soft=settings.aggregator == "netvlad")
    tokens, local = np.split(samples, [widths[0]], axis=1)
    parts = {"tokens": _vocabulary(tokens, settings, soft=True), "local": _vocabulary(local, settings, soft=False)}
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def _vocabulary(
    samples: Float32[np.ndarray, "samples d"], settings: VladSettings, *, soft: bool
) -> dict[str, np.ndarray]:
    """Fit visual words, and their assignment if `soft`."""
    vocabulary = fit_vocabulary(samples, settings)
    if not soft:
        return asdict(vocabulary)
    points = torch.from_numpy(whitened(samples, vocabulary.mean, vocabulary.whitening))
    centres = torch.from_numpy(vocabulary.centres)
    weight, bias = assignment_of(centres, _sharpness(points, centres))
    return asdict(vocabulary) | {"assignment.weight": weight.numpy(), "assignment.bias": bias.numpy()}


def _sharpness(points: Float[Tensor, "samples reduced"], centres: Float[Tensor, "words reduced"]) -> float:
    """Factor alpha of squared distances for which the two largest softmax weights have a mean ratio of 100."""
    if len(centres) == 1:
        return 1.0
    nearest = torch.cat([torch.cdist(part, centres).topk(2, largest=False).values for part in points.split(4096)])
    squared = nearest.square().mean(0)
    return float(np.log(_RATIO) / (squared[1] - squared[0]).clamp(min=1e-6))


def _aggregator(
    settings: VladSettings, fitted: dict[str, np.ndarray], head: LocalHead | None
) -> BandedVlad | JointVlad:
    """Build the aggregator without a projection; `head` is that of a joint VLAD."""
    state = {name: torch.from_numpy(array) for name, array in fitted.items()}

    def sizes(prefix: str) -> VladSizes:
        words, reduced = state[f"{prefix}centres"].shape
        return VladSizes(words, settings.bands, reduced, dimension=0)

    if head is not None:
        state |= {f"head.{name}": value for name, value in head.state_dict().items()}
        head_sizes = LocalHeadSizes.of(head.state_dict())
        built = JointVlad(len(state["tokens.mean"]), JointVladSizes(sizes("tokens."), sizes("local."), head_sizes, 0))
    else:
        vlad = NetVlad if settings.aggregator == "netvlad" else Vlad
        built = vlad(len(state["mean"]), sizes(""))
    built.load_state_dict(state)
    return built.eval()


def _vlads_of_views(
    cells: _Cells, aggregator: BandedVlad | JointVlad, paths: Sequence[Path], settings: VladSettings, first: int
) -> Iterator[Float32[np.ndarray, "samples unprojected"]]:
    """Yield the mean VLAD of random views of each image, or the VLADs of the image and each of its views."""
    long_side_px = max(cells.preprocessing.width, cells.preprocessing.height)
    views = partial(_views, long_side_px=long_side_px, settings=settings)
    for start in range(first, len(paths), _BATCH):
        images = in_parallel(views, [*enumerate(paths)][start : start + _BATCH])
        found = cells.each([view for one in images for view in one], aggregator.unprojected)
        each = found.reshape(len(images), len(found) // len(images), -1)
        yield from each.mean(axis=1, keepdims=True) if settings.average_views else each


def _projection(
    vlads: Float32[np.ndarray, "samples unprojected"], aggregator: BandedVlad | JointVlad, settings: VladSettings
) -> dict[str, Tensor]:
    """Learn the projection; the weight of the local part is a factor of its columns."""
    weights = torch.ones(vlads.shape[1])
    if isinstance(aggregator, JointVlad):
        weights[aggregator.sizes.tokens.unprojected :] = settings.local_weight
    weighted = vlads * weights.numpy()
    axes, _ = projection_of(weighted, settings.dimension, settings.whitening_power, settings.eigenvalue_ridge)
    projection = (torch.from_numpy(axes) * weights).half()
    # From the rounded projection, so that it cancels the mean exactly.
    return {"projection": projection, "offset": projection.float() @ torch.from_numpy(vlads).mean(0)}


def _views(numbered: tuple[int, Path], long_side_px: int, settings: VladSettings) -> list[Image]:
    index, path = numbered
    random, image = np.random.default_rng((settings.seed, 1, index)), decode_named(path)
    views = [random_view(image, long_side_px, random) for _ in range(settings.views_per_image)]
    in_bytes = [cv2.convertScaleAbs(view, alpha=255.0) for view in views]
    return in_bytes if settings.average_views else [image, *in_bytes]
