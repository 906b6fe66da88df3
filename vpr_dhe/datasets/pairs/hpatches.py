"""HPatches: sequences of six images of a plane, with homographies from the first to the others.

Source: Balntas et al., "HPatches: A benchmark and evaluation of handcrafted and learned local descriptors", CVPR 2017.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.datasets.pairs.base import HomographyPair, PairLayout, PairSet, true_homography
from vpr_dhe.datasets.pairs.pictures import resize, size_of
from vpr_dhe.errors import DatasetError
from vpr_dhe.geometry.coordinates import homographies_between_inputs
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.records import Frame, Image, Size

SHORT_SIDE_PX = 480
LEFT_OUT = frozenset(
    {
        "i_contruction",
        "i_crownnight",
        "i_dc",
        "i_pencils",
        "i_whitebuilding",
        "v_artisans",
        "v_astronautis",
        "v_talent",
    }
)
"""Sequences of images larger than 1600 x 1200 pixels, commonly excluded since D2-Net (Dusmanu et al., CVPR 2019)."""

_GROUPS = {"i_": "illumination", "v_": "viewpoint"}
_OTHERS = range(2, 7)
_SUFFIXES = (".ppm", ".pgm", ".png", ".jpg")


def read_hpatches(root: Path) -> PairSet:
    """Read all sequences except the large ones: five pairs each, in the groups "illumination" and "viewpoint".

    The protocol is that of the homography evaluation of glue-factory (Lindenberger et al., "LightGlue", ICCV 2023):
    both images are resized so that the shorter side has 480 pixels and the longer one is rounded down, and the
    homography is converted. glue-factory scales coordinates and measures errors at the corners (0, 0) to (width,
    height). Here, pixel centres are mapped to pixel centres (`coordinates.resizing`), a difference of less than half a
    pixel, and errors are measured at the centres of the corner pixels.

    Raises:
        DatasetError: if there is no sequence, or one lacks an image or a homography.
    """
    sequences = _sequences(root)
    if not sequences:
        raise DatasetError(f"{root} holds no sequences of HPatches; expected {LAYOUT.expected}")
    kept = [folder for folder in sequences if folder.name not in LEFT_OUT]
    protocol = (
        f"HPatches, {len(kept)} sequences (large ones left out: {len(sequences) - len(kept)}), "
        f"shorter side {SHORT_SIDE_PX} px, errors at the centres of corner pixels"
    )
    return PairSet(root.resolve().name, protocol, tuple(pair for folder in kept for pair in _pairs(folder)))


def _sequences(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.name[:2] in _GROUPS and folder.is_dir())


def _pairs(sequence: Path) -> list[HomographyPair]:
    reference = _image(sequence, 1)
    frame = _frame(reference)
    return [_pair(sequence, number, reference, frame) for number in _OTHERS]


def _pair(sequence: Path, number: int, reference: Path, reference_frame: Frame) -> HomographyPair:
    image = _image(sequence, number)
    frame = _frame(image)
    path = sequence / f"H_1_{number}"
    between_originals = torch.from_numpy(true_homography(_read_matrix(path), str(path)))
    resized = homographies_between_inputs(between_originals[None], reference_frame, [frame])[0].numpy()
    return HomographyPair(
        f"{sequence.name}/1-{number}",
        _GROUPS[sequence.name[:2]],
        partial(_decode_resized, reference, reference_frame.input_size),
        partial(_decode_resized, image, frame.input_size),
        # The resized homography may be singular even if the file's is not.
        true_homography(resized, str(path)),
    )


def _image(sequence: Path, number: int) -> Path:
    for suffix in _SUFFIXES:
        path = sequence / f"{number}{suffix}"
        if path.is_file():
            return path
    raise DatasetError(f"{sequence} has no image {number}.ppm (or {', '.join(_SUFFIXES[1:])}); copy it there")


def _frame(path: Path) -> Frame:
    size = size_of(path)
    short = min(size)
    # In integers, so that rounding errors cannot change the size.
    return Frame(size, Size(SHORT_SIDE_PX * size.width // short, SHORT_SIDE_PX * size.height // short))


def _decode_resized(path: Path, size: Size) -> Image:
    return resize(decode_named(path), size)


def _read_matrix(path: Path) -> Float64[np.ndarray, "3 3"]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; expected a file of the nine numbers of a homography")
    words = path.read_text(encoding="utf-8", errors="replace").split()
    try:
        return np.array([float(word) for word in words]).reshape(3, 3)
    except ValueError:
        raise DatasetError(
            f"{path} does not hold the nine numbers of a homography; found {' '.join(words)[:80]!r}"
        ) from None


LAYOUT = PairLayout(
    "hpatches",
    "folders i_* and v_* with 1.ppm to 6.ppm and H_1_2 to H_1_6",
    lambda root: any((folder / "H_1_2").is_file() for folder in _sequences(root)),
    read_hpatches,
)
