"""Views of photos for a teacher and its student: the same crop, sometimes in another light for the student.

Teacher and student see the same augmented image most of the time, so that photos without labels, however few, make any
number of different examples. Source: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
CVPR 2022.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import distorted_crop, relit
from vpr_dhe.images import decode_named, list_images
from vpr_dhe.records import Image, Size
from vpr_dhe.training.registration.random_contrasts import as_another_sensor
from vpr_dhe.training.sources.base import JoinedPairs, PairSource, TrainingPair, hold_out

_MIXED, _OTHER_SENSOR, _RELIT, _RELIT_FOR_STUDENT = 0.3, 0.1, 0.5, 0.25
"""Shares of the views."""


class TeacherViews(PairSource):
    """Crops of photos; image A is for the teacher and image B for the student.

    Three in ten have a rectangle of another photo, one in ten has other contrasts, and half have another light. A
    quarter differ in light between teacher and student.

    Args:
        paths: of the photos.
        whole: size at which the networks see whole photos; the scale of the views is up to 1.7 times as large.
        size: of the views.
        description: of the photos.
    """

    knows_homographies = False

    def __init__(self, paths: Sequence[Path], whole: Size, size: Size, description: str) -> None:
        self.paths, self.whole, self.size, self.description = tuple(paths), whole, size, description

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make the views of a photo."""
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


class WholePhotos(PairSource):
    """Photos as they are, alike for teacher and student, to validate with."""

    knows_homographies = False

    def __init__(self, paths: Sequence[Path], description: str) -> None:
        self.paths, self.description = tuple(paths), description

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:  # noqa: ARG002 (nothing is random)
        """Read a photo."""
        photo = decode_named(self.paths[index])
        return TrainingPair(photo, photo)


def open_views(
    folders: Sequence[Path], whole: Size, size: Size, validation: Sequence[Path] = ()
) -> tuple[PairSource, PairSource]:
    """Views of the photos of folders, and whole photos to validate with.

    Args:
        folders: of photos to learn from; subfolders are included.
        whole: size at which the networks see whole photos.
        size: of the views.
        validation: folders of photos to validate with; by default, every tenth photo of `folders` is kept for it.

    Raises:
        BadInputError: if a folder is missing or holds no photos.
        DatasetError: if no photos are left to learn from.
    """
    photos, kept = _photos(folders), _photos(validation)
    if not validation:
        photos, kept = hold_out(photos)
    description = f"{len(photos)} photos of {', '.join(folder.resolve().name for folder in folders)}"
    return JoinedPairs([TeacherViews(photos, whole, size, description)]), JoinedPairs([WholePhotos(kept, "")])


def _photos(folders: Sequence[Path]) -> list[Path]:
    return [folder / path for folder in folders for path in list_images(folder)]


def _paste(source: Image, view: Image, random: np.random.Generator) -> None:
    """Copy, in place, a rectangle of a third to two thirds of each side, at the same place."""
    height, width = view.shape[:2]
    rows, columns = (int(side * random.uniform(1 / 3, 2 / 3)) for side in (height, width))
    top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
    part = np.s_[top : top + rows, left : left + columns]
    view[part] = source[part]
