"""Fitting of `sift-vlad`, vocabulary and projections, to unlabelled images within minutes.

Photos of one place differ by viewpoint and light. The projection of the VLAD is therefore learned from the mean over
random views of each image, in which variation among views of one image averages out.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from sklearn.cluster import KMeans

from vpr_dhe.datasets.augmentation import random_view
from vpr_dhe.errors import BadInputError
from vpr_dhe.features.sift_vlad import INPUT_SIZE, local_descriptors_of_cells
from vpr_dhe.features.vlad import LONG_SIDE_PX, Vocabulary, banded_vlad, local_descriptors, whitened
from vpr_dhe.images import decode_image
from vpr_dhe.models.catalogue import SIFT_VLAD
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Preprocessing, Progress, StartProgress, without_progress
from vpr_dhe.training.whitening import principal_axes_of, projection_of

Result = TypeVar("Result")
Grey = UInt8[np.ndarray, "_height _width"]

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@dataclass(frozen=True)
class FitSettings:
    """Sizes of the model and of its training.

    `eigenvalue_floor` is added to the eigenvalues of local descriptors, as a fraction of the largest one. Each output
    dimension is divided by its eigenvalue to the power `whitening_power`; 0.5 is full whitening, for which the smallest
    eigenvalues are too noisy with a few thousand images.
    """

    dimension: int = 384
    words: int = 64
    reduced_dimension: int = 64
    local_dimension: int = 128
    eigenvalue_floor: float = 0.01
    descriptors_per_image: int = 120
    views_per_image: int = 4
    whitening_power: float = 0.4
    seed: int = 0


def fit(
    paths: Sequence[Path],
    settings: FitSettings,
    training_data: str,
    *,
    start_progress: StartProgress = without_progress,
) -> ModelFile:
    """Learn vocabulary and projections from images, on all cores.

    Args:
        paths: of the images.
        settings: sizes of the model and of its training.
        training_data: description and licences of the images, for the model file.
        start_progress: called with the name and length of each pass over the images.

    Raises:
        BadInputError: if there are not more images than dimensions.
    """
    if len(paths) <= settings.dimension:
        raise BadInputError(
            f"{len(paths)} images were found, but a projection to {settings.dimension} dimensions needs more images "
            "than dimensions; give more images"
        )
    sampled = partial(_sampled_descriptors, settings=settings)
    samples = np.concatenate(_each(sampled, paths, start_progress("local descriptors", len(paths))))
    vocabulary = _vocabulary(samples, settings)
    view = partial(_mean_vlad_of_views, settings=settings, vocabulary=vocabulary)
    projection, offset = projection_of(
        np.stack(_each(view, paths, start_progress("views", len(paths)))),
        settings.dimension,
        settings.whitening_power,
    )
    moments = _each(_second_moment_of_cells, paths, start_progress("cells", len(paths)))
    axes, _ = principal_axes_of(torch.from_numpy(np.mean(moments, axis=0)), settings.local_dimension)
    learned = {
        "aggregator.mean": vocabulary.mean,
        "aggregator.whitening": vocabulary.whitening,
        "aggregator.centres": vocabulary.centres,
        "aggregator.projection": projection,
        "backbone.local_projection": axes.numpy(),
    }
    tensors = {name: torch.from_numpy(array).half() for name, array in learned.items()}
    return ModelFile(
        name=SIFT_VLAD,
        architecture=Architecture(backbone=SIFT_VLAD, aggregator="vlad", tolerance_cells=1.5),
        # Grey values in [0, 1], without normalisation.
        preprocessing=Preprocessing(*INPUT_SIZE, "area", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        licence="Apache-2.0",
        training_data=training_data,
        tensors={**tensors, "aggregator.offset": torch.from_numpy(offset)},
    )


def _vocabulary(samples: Float32[np.ndarray, "samples 128"], settings: FitSettings) -> Vocabulary:
    """Whiten descriptors and cluster them."""
    mean = samples.mean(axis=0)
    axes, variances = principal_axes_of(torch.from_numpy(np.cov(samples.T)), settings.reduced_dimension)
    whitening = (axes * (variances + settings.eigenvalue_floor * variances[0]).rsqrt()).float().numpy()
    points = whitened(samples, mean, whitening)
    clusters = KMeans(settings.words, n_init="auto", max_iter=30, random_state=settings.seed).fit(points)
    return Vocabulary(mean, whitening, clusters.cluster_centers_.astype(np.float32))


def _sampled_descriptors(path: Path, index: int, *, settings: FitSettings) -> Float32[np.ndarray, "samples 128"]:
    random = np.random.default_rng((settings.seed, 0, index))
    rootsift = local_descriptors(_read_grey(path).astype(np.float32) / 255).rootsift
    return rootsift[random.choice(len(rootsift), min(settings.descriptors_per_image, len(rootsift)), replace=False)]


def _mean_vlad_of_views(
    path: Path, index: int, *, settings: FitSettings, vocabulary: Vocabulary
) -> Float32[np.ndarray, " vlad"]:
    random = np.random.default_rng((settings.seed, 1, index))
    image = _read_grey(path)
    views = (random_view(image, LONG_SIDE_PX, random) for _ in range(settings.views_per_image))
    return np.mean([banded_vlad(local_descriptors(view), vocabulary) for view in views], axis=0)


def _second_moment_of_cells(path: Path, _: int) -> Float32[np.ndarray, "256 256"]:
    """Compute the uncentred second moment: cosines between cells are uncentred, too, and the projection keeps them."""
    cells = local_descriptors_of_cells(_read_grey(path).astype(np.float32) / 255)
    return (cells.T @ cells / len(cells)).numpy()


def _read_grey(path: Path) -> Grey:
    return cv2.cvtColor(decode_image(path), cv2.COLOR_RGB2GRAY)


def _each(function: Callable[[Path, int], Result], paths: Sequence[Path], progress: Progress) -> list[Result]:
    """Map `function(path, index)` over the paths, in order, on all cores."""
    results: list[Result] = []
    # "spawn", because forking after OpenCV or torch started their threads can hang.
    with _one_blas_thread(), multiprocessing.get_context("spawn").Pool(initializer=_one_thread) as pool:
        numbered = list(zip(paths, range(len(paths)), strict=True))
        for result in pool.imap(partial(_apply, function), numbered, chunksize=16):
            results.append(result)
            progress(1)
    return results


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Limit processes that start here to one BLAS thread each, because there is one process per core."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_BLAS_THREADS]


def _apply(function: Callable[[Path, int], Result], arguments: tuple[Path, int]) -> Result:
    return function(*arguments)


def _one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
