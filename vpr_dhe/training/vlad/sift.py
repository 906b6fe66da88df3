"""Fit of the arrays of `sift-vlad`, vocabulary and projections.

Images of one place differ in viewpoint and lighting. The projection of the VLAD is therefore fitted to the mean over
random views of each image, in which the variation between views of one image averages out.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from vpr_dhe.datasets.augmentation import random_view
from vpr_dhe.features.dense_sift import DIMENSION
from vpr_dhe.features.sift_vlad import INPUT_SIZE, local_descriptors_of_cells
from vpr_dhe.features.vlad import LONG_SIDE_PX, Vocabulary, banded_vlad, local_descriptors
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.models.names import SIFT_VLAD
from vpr_dhe.records import Preprocessing, StartProgress
from vpr_dhe.training.vlad.partial_results import PartialResults
from vpr_dhe.training.vlad.settings import VladSettings, fit_vocabulary, require_projectable
from vpr_dhe.training.whitening import principal_axes_of, projection_of

Grey = UInt8[np.ndarray, "_height _width"]

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def fit_sift_vlad(
    paths: Sequence[Path],
    settings: VladSettings,
    partial_results: PartialResults,
    start_progress: StartProgress,
) -> ModelFile:
    """Fit vocabulary and projections to images, on all cores; see `vpr_dhe.training.vlad.fit.fit_vlad`."""
    require_projectable(settings, DIMENSION)
    with _processes() as pool:

        def rows(name: str, function: Callable[[Path, int], np.ndarray]) -> np.ndarray:
            progress = start_progress(name, len(paths))
            results = partial(_each, pool, function, paths)
            return partial_results.rows(name.replace(" ", "-"), len(paths), results, progress)

        samples = rows("local descriptors", partial(_sampled_descriptors, settings=settings))
        stored = partial_results.arrays("vocabulary", lambda: asdict(fit_vocabulary(samples, settings)))
        vocabulary = Vocabulary(**stored)
        means = rows("views", partial(_mean_vlad_of_views, settings=settings, vocabulary=vocabulary))
        moments = partial_results.arrays("cells", lambda: {"mean": _mean_moment(pool, paths, start_progress)})["mean"]
    projection, offset = projection_of(means, settings.dimension, settings.whitening_power)
    axes, _ = principal_axes_of(torch.from_numpy(moments), settings.local_dimension)
    learned = {
        **{f"aggregator.{name}": array for name, array in stored.items()},
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
        training_data="",
        tensors={**tensors, "aggregator.offset": torch.from_numpy(offset)},
    )


def _sampled_descriptors(path: Path, index: int, *, settings: VladSettings) -> Float32[np.ndarray, "samples 128"]:
    random = np.random.default_rng((settings.seed, 0, index))
    rootsift = local_descriptors(_read_grey(path).astype(np.float32) / 255).rootsift
    return rootsift[random.choice(len(rootsift), min(settings.descriptors_per_image, len(rootsift)), replace=False)]


def _mean_vlad_of_views(
    path: Path, index: int, *, settings: VladSettings, vocabulary: Vocabulary
) -> Float32[np.ndarray, "1 vlad"]:
    random = np.random.default_rng((settings.seed, 1, index))
    image = _read_grey(path)
    views = (random_view(image, LONG_SIDE_PX, random) for _ in range(settings.views_per_image))
    vlads = [banded_vlad(local_descriptors(view), vocabulary, settings.bands) for view in views]
    return np.mean(vlads, axis=0, keepdims=True)


def _mean_moment(pool: Pool, paths: Sequence[Path], start_progress: StartProgress) -> Float32[np.ndarray, "256 256"]:
    """Average the second moments of the images' cells."""
    progress, total = start_progress("cells", len(paths)), np.zeros((), np.float32)
    for moment in _each(pool, _second_moment_of_cells, paths, 0):
        total = total + moment
        progress(1)
    return total / np.float32(len(paths))


def _second_moment_of_cells(path: Path, _: int) -> Float32[np.ndarray, "256 256"]:
    """Compute the uncentred second moment, because the projection must preserve cosines, which are uncentred."""
    cells = local_descriptors_of_cells(_read_grey(path).astype(np.float32) / 255)
    return (cells.T @ cells / len(cells)).numpy()


def _read_grey(path: Path) -> Grey:
    return cv2.cvtColor(decode_named(path), cv2.COLOR_RGB2GRAY)


def _each(
    pool: Pool, function: Callable[[Path, int], np.ndarray], paths: Sequence[Path], first: int
) -> Iterator[np.ndarray]:
    """Map `function(path, index)` over the paths from `first` on, in order, on all cores."""
    return pool.imap(partial(_apply, function), [*enumerate(paths)][first:], chunksize=4)


@contextmanager
def _processes() -> Iterator[Pool]:
    """Start one process per core, each with one thread."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        # "spawn", because forking after OpenCV or torch started their threads can hang.
        with multiprocessing.get_context("spawn").Pool(initializer=_prepare_process) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ[_BLAS_THREADS]


def _apply(function: Callable[[Path, int], np.ndarray], numbered: tuple[int, Path]) -> np.ndarray:
    index, path = numbered
    return function(path, index)


def _prepare_process() -> None:
    """Limit a process to one thread and ignore Ctrl-C, which the parent handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
