"""Views of images for a teacher and its student: the same crop, sometimes with other lighting for the student.

Teacher and student mostly see the same augmented image, so that a few unlabelled images give any number of examples.
Source: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import distorted_crop, relit
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import Image, Size
from vpr_dhe.training.registration.random_contrasts import as_another_sensor
from vpr_dhe.training.sources.base import JoinedPairs, PairSource, TrainingPair, hold_out

_MIXED, _OTHER_SENSOR, _RELIT, _RELIT_FOR_STUDENT = 0.3, 0.1, 0.5, 0.25
"""Shares of the views."""


class TeacherViews(PairSource):
    """Crops of images; image A is for the teacher and image B for the student.

    Three in ten have a rectangle of another image (CutMix), one in ten has other contrasts, and half have other
    lighting. In a quarter, teacher and student see different lighting.

    Args:
        paths: paths of the images.
        whole: input size of the networks for whole images; views are enlarged up to 1.7 times relative to it.
        size: size of the views.
        description: summary of the images.
    """

    knows_homographies = False

    def __init__(self, paths: Sequence[Path], whole: Size, size: Size, description: str) -> None:
        self.paths, self.whole, self.size, self.description = tuple(paths), whole, size, description

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make the views of an image."""
        view = self._crop(index, random)
        if random.random() < _MIXED:
            _paste(self._crop(int(random.integers(len(self.paths))), random), view, random)
        if random.random() < _OTHER_SENSOR:
            view = as_another_sensor(view, random)
        if random.random() < _RELIT:
            view = relit(view, random)
        return TrainingPair(view, relit(view, random) if random.random() < _RELIT_FOR_STUDENT else view)

    def _crop(self, index: int, random: np.random.Generator) -> Image:
        return distorted_crop(decode_named(self.paths[index]), self.whole, self.size, random)


class WholeImages(PairSource):
    """Uncropped images for validation, the same for teacher and student."""

    knows_homographies = False

    def __init__(self, paths: Sequence[Path], description: str) -> None:
        self.paths, self.description = tuple(paths), description

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:  # noqa: ARG002 (nothing is random)
        """Read an image."""
        photo = decode_named(self.paths[index])
        return TrainingPair(photo, photo)


def open_views(
    folders: Sequence[Path], whole: Size, size: Size, validation: Sequence[Path] = ()
) -> tuple[PairSource, PairSource]:
    """Open folders of images as views for training and as whole images for validation.

    Args:
        folders: folders of training images; subfolders are included.
        whole: input size of the networks for whole images.
        size: size of the views.
        validation: folders of validation images; by default, every tenth image of `folders` is held out.

    Raises:
        BadInputError: if a folder is missing or contains no images.
        DatasetError: if no images are left for training.
    """
    photos, held_out = _photos(folders), _photos(validation)
    if not validation:
        photos, held_out = hold_out(photos)
    description = f"{len(photos)} photos of {', '.join(folder.resolve().name for folder in folders)}"
    return JoinedPairs([TeacherViews(photos, whole, size, description)]), JoinedPairs([WholeImages(held_out, "")])


def _photos(folders: Sequence[Path]) -> list[Path]:
    return [folder / path for folder in folders for path in list_images(folder)]


def _paste(source: Image, view: Image, random: np.random.Generator) -> None:
    """Copy, in place, a rectangle of a third to two thirds of each side to the same position."""
    height, width = view.shape[:2]
    rows, columns = (int(side * random.uniform(1 / 3, 2 / 3)) for side in (height, width))
    top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
    part = np.s_[top : top + rows, left : left + columns]
    view[part] = source[part]
