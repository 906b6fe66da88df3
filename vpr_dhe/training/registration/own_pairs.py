"""Photos paired with themselves in other lights and contrasts, to train homography networks on any photos.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798): pairs made of single photos.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import relit
from vpr_dhe.datasets.pairs.pictures import resize
from vpr_dhe.images import decode_named, list_images
from vpr_dhe.records import Image, Size
from vpr_dhe.training.registration.aligned import AlignedData, Photos, some_part
from vpr_dhe.training.registration.parts import learned_and_kept
from vpr_dhe.training.registration.random_contrasts import in_random_contrast
from vpr_dhe.training.sources.base import PairSource, TrainingPair


class OwnPairs(PairSource):
    """Square pairs in which each pixel of A shows the same as that pixel of B, in another light.

    Every other image also has a random contrast, to resemble other kinds of cameras and maps.

    Args:
        paths: of the photos.
        side_px: of the resized photos.
        varied: whether to crop at random each time; see `AlignedPhotos`.
        description: summary of the photos.
    """

    knows_homographies = True

    def __init__(self, paths: Sequence[Path], side_px: int, *, varied: bool, description: str) -> None:
        self._paths, self._size, self._varied = tuple(paths), Size(side_px, side_px), varied
        self.description = description

    def __len__(self) -> int:
        return len(self._paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make two versions of a photo."""
        path = self._paths[index]
        photo = decode_named(path)
        if self._varied:
            photo = some_part(Photos(photo, photo), random).a
        photo = resize(np.ascontiguousarray(photo), self._size)
        image_a, image_b = (_altered(photo, random) for _ in range(2))
        return TrainingPair(image_a, image_b, np.eye(3), frozenset([str(path)]), holds_everywhere=True)


def _altered(photo: Image, random: np.random.Generator) -> Image:
    return relit(in_random_contrast(photo, random) if random.random() < 0.5 else photo, random)


def open_own_pairs(root: Path, side_px: int) -> AlignedData:
    """Open the photos of a folder, in parts; see `learned_and_kept`.

    Raises:
        BadInputError: if a folder is missing or holds no photo.
        DatasetError: if it holds only one.
    """
    learned, kept = learned_and_kept(root, lambda part: [part / path for path in list_images(part)], "photo")
    name = root.resolve().name
    return AlignedData(
        OwnPairs(learned, side_px, varied=True, description=f"{len(learned)} photos of {name} in random contrasts"),
        OwnPairs(kept, side_px, varied=False, description=f"{len(kept)} photos of {name} in random contrasts"),
    )
