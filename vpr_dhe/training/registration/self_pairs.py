"""Images paired with themselves in other lighting and contrast, to train homography networks on any images.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798): pairs made from single images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import relit
from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.datasets.pairs.pictures import resize
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import Image, Size
from vpr_dhe.training.registration.aligned import AlignedData, AlignedImages, AlignedPair, some_part
from vpr_dhe.training.registration.random_contrasts import as_another_sensor
from vpr_dhe.training.registration.split import train_and_val
from vpr_dhe.training.sources.base import JoinedPairs, PairSource, TrainingPair

_SHARE_OF_PAIRS = 0.1
"""Share of aligned pairs, relative to the images that are paired with themselves."""


class SelfPairs(PairSource):
    """Square pixel-aligned pairs of an image with itself in other lighting.

    Half of the images also simulate another sensor or a map; see `as_another_sensor`.

    Args:
        paths: paths of the images.
        side_px: side of the resized images.
        varied: whether to crop at random each time; see `AlignedImages`.
        description: summary of the images.
    """

    knows_homographies = True

    def __init__(self, paths: Sequence[Path], side_px: int, *, varied: bool, description: str) -> None:
        self._paths, self._size, self._varied = tuple(paths), Size(side_px, side_px), varied
        self.description = description

    def __len__(self) -> int:
        return len(self._paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make two versions of an image."""
        path = self._paths[index]
        photo = decode_named(path)
        if self._varied:
            photo = some_part(AlignedPair(photo, photo), random).a
        photo = resize(np.ascontiguousarray(photo), self._size)
        image_a, image_b = (_altered(photo, random) for _ in range(2))
        return TrainingPair(image_a, image_b, np.eye(3), frozenset([str(path)]), holds_everywhere=True)


def _altered(photo: Image, random: np.random.Generator) -> Image:
    return relit(as_another_sensor(photo, random) if random.random() < 0.5 else photo, random)


def open_self_pairs(root: Path, side_px: int, pairs: Path | None = None) -> AlignedData:
    """Open the images of a folder, split by `train_and_val`.

    Args:
        root: folder of images.
        side_px: side of the resized images.
        pairs: folder of additional aligned training pairs, repeated to make up about a tenth of the data.

    Raises:
        BadInputError: if a folder is missing or contains no image.
        DatasetError: if it contains only one, or `pairs` contains none.
    """
    train, val = train_and_val(root, lambda part: [part / path for path in list_images(part)], "photo")
    name = root.resolve().name
    photos = SelfPairs(train, side_px, varied=True, description=f"{len(train)} photos of {name} in random contrasts")
    return AlignedData(
        photos if pairs is None else _joined(photos, pairs, side_px),
        SelfPairs(val, side_px, varied=False, description=f"{len(val)} photos of {name} in random contrasts"),
    )


def _joined(photos: PairSource, root: Path, side_px: int) -> PairSource:
    pairs = read_pairs(root).pairs
    description = f"{len(pairs)} pairs of {root.resolve().name}"
    aligned = AlignedImages(pairs, side_px, varied=True, description=description)
    repeats = max(1, round(_SHARE_OF_PAIRS * len(photos) / len(aligned)))
    joined = JoinedPairs([photos, *[aligned] * repeats])
    joined.description = f"{photos.description}; {description}, {repeats} times"
    return joined
