"""Photos paired with themselves, in other lights and contrasts: what a homography network can learn from any photo.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798): pairs made of single photos.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpr_dhe.errors import DatasetError
from vpr_dhe.images import decode_named, list_images
from vpr_dhe.places.pairs.pictures import resize
from vpr_dhe.records import Image, Size
from vpr_dhe.training.random_contrasts import in_random_contrast
from vpr_dhe.training.random_views import relit
from vpr_dhe.training.sources import HELD_OUT
from vpr_dhe.training.sources.aligned import PARTS, AlignedData, Photos, some_part
from vpr_dhe.training.sources.base import PairSource, TrainingPair


class OwnPairs(PairSource):
    """Pairs of one square size in which each pixel of A shows what that pixel of B shows, in another light.

    Every other photo is shown in a random contrast besides, as cameras of another kind and maps show it.

    Args:
        paths: of the photos.
        side_px: of the pairs, whatever the photos' aspect was.
        varied: whether to take another part of the photo every time; see `AlignedPhotos`.
        description: what the photos are.
    """

    knows_homographies = True

    def __init__(self, paths: Sequence[Path], side_px: int, *, varied: bool, description: str) -> None:
        self._paths, self._size, self._varied = tuple(paths), Size(side_px, side_px), varied
        self.description = description

    def __len__(self) -> int:
        return len(self._paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Show a photo twice."""
        path = self._paths[index]
        photo = decode_named(path)
        if self._varied:
            photo = some_part(Photos(photo, photo), random).a
        photo = resize(np.ascontiguousarray(photo), self._size)
        image_a, image_b = (_shown(photo, random) for _ in range(2))
        return TrainingPair(image_a, image_b, np.eye(3), frozenset([str(path)]), holds_everywhere=True)


def _shown(photo: Image, random: np.random.Generator) -> Image:
    return relit(in_random_contrast(photo, random) if random.random() < 0.5 else photo, random)


def open_own_pairs(root: Path, side_px: int) -> AlignedData:
    """Open the photos in the parts `train` and `val` of a folder, or hold out every tenth of one without parts.

    Raises:
        BadInputError: if a folder is missing or holds no photo.
        DatasetError: if it holds one alone.
    """
    learned, kept = _read_parts(root)
    name = root.resolve().name
    return AlignedData(
        OwnPairs(learned, side_px, varied=True, description=f"{len(learned)} photos of {name}"),
        OwnPairs(kept, side_px, varied=False, description=f"{len(kept)} photos of {name}"),
    )


def _read_parts(root: Path) -> tuple[list[Path], list[Path]]:
    """The photos to learn from, and those to validate with."""
    parts = [root / name for name in PARTS]
    if all(part.is_dir() for part in parts):
        learned, kept = ([part / path for path in list_images(part)] for part in parts)
        return learned, kept
    photos = [root / path for path in list_images(root)]
    if len(photos) < 2:
        raise DatasetError(
            f"{root} holds one photo; at least two are needed, one to learn from and one to validate with"
        )
    return [photo for number, photo in enumerate(photos) if number % HELD_OUT], photos[::HELD_OUT]
