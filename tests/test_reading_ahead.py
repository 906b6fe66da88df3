"""Reading ahead: order, errors, who may be interrupted, and what is left behind."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.errors import ImageError, WorkerLostError
from vpr_dhe.images import decode_image
from vpr_dhe.reading_ahead import read_ahead, reading_processes


class Picture(NamedTuple):
    """More than one array, as a reader may give."""

    name: int
    pixels: np.ndarray
    corner: np.ndarray


# Processes that read import this module, where tests are imported by path.
def read_number(number: int) -> int:
    return number


@pytest.fixture(scope="module")
def by_processes():
    with reading_processes(2, ["vpr_dhe.images"]) as read:
        yield read


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    """Thirty images of different sizes, of which the eighth is broken."""
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    paths = [tmp_path / f"{number:02d}.png" for number in range(30)]
    for number, path in enumerate(paths):
        picture.resize((30 + number, 40)).save(path)
    paths[7].write_bytes(b"broken")
    return paths


def test_reading_ahead_keeps_the_order_and_the_errors(paths):
    decoded = list(read_ahead(decode_image, paths))
    assert isinstance(decoded[7], ImageError)
    widths = [image.shape[1] for image in decoded if not isinstance(image, ImageError)]
    assert widths == [30 + number for number in range(30) if number != 7]


def test_processes_read_what_threads_read(paths, by_processes):
    # Three times as many as there is shared memory for at once.
    names = 3 * paths
    for one, other in zip(read_ahead(decode_image, names), by_processes(decode_image, names), strict=True):
        if isinstance(one, ImageError):
            assert isinstance(other, ImageError)
            assert str(other) == str(one)
        else:
            np.testing.assert_array_equal(other, one)
            assert other.flags.writeable
