"""Picture of the adaptation of an index: a hub, and a retrieval error that whitening corrects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.images.loading import image_size
from vpr_dhe.index.adaptation.hubs import hub_means
from vpr_dhe.index.adaptation.map_images import SPOT_M, MapImages, mask_of
from vpr_dhe.index.adaptation_update import records_of
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Image
from vpr_dhe.report.pictures.encoding import scaled
from vpr_dhe.report.pictures.panels import titled
from vpr_dhe.runtime.sampling import evenly_spread

_SHOWN = 3
# Maximum number of images searched for examples.
_SAMPLE = 2048
_PANEL_WIDTH_PX, _GAP_PX, _GREY, _LETTERS = 320, 12, 128, 0.55


@dataclass(frozen=True)
class AdaptationExample:
    """Row of images with titles that illustrates one effect of the adaptation."""

    images: tuple[int, ...]
    titles: tuple[str, ...]


def draw_examples(index: PlaceIndex) -> Image:
    """Draw the largest hub with its most similar images of other places, and the most clearly corrected error.

    Raises:
        BadInputError: if the index is not adapted, or its images have no positions.
        ImageError: if an image file is missing.
    """
    examples = _examples(index)
    rows = [
        [
            titled(_panel(index.snapshot.decode(id)), title, letter_height=_LETTERS)
            for id, title in zip(*columns, strict=True)
        ]
        for columns in ((example.images, example.titles) for example in examples)
    ]
    return _grid(rows)


def _examples(index: PlaceIndex) -> list[AdaptationExample]:
    adaptation = index.snapshot.adaptation
    if adaptation is None:
        raise BadInputError(f"the vectors of {index.folder} are searched as extracted, so there is nothing to draw")
    ids = index.ids[evenly_spread(len(index), _SAMPLE)]
    images = MapImages.of(records_of(index.snapshot, ids))
    if not images.have_positions:
        raise BadInputError(f"images of {index.folder} have no positions, so hubs and corrected errors are unknown")
    vectors = index.descriptors(ids.tolist()).numpy()
    transformed = adaptation.parameters.transform.apply(vectors)
    rows = np.arange(len(ids))
    same = mask_of(images.near(rows), len(ids))
    spot = mask_of(images.near(rows, SPOT_M), len(ids)) | mask_of(images.recent(rows), len(ids))
    examples = [_hub(ids, transformed, same)]
    corrected = _corrected(ids, vectors @ vectors.T, transformed @ transformed.T, same, spot)
    return examples if corrected is None else [*examples, corrected]


def _hub(
    ids: Int64[np.ndarray, " images"],
    transformed: Float32[np.ndarray, "images dimension"],
    same: Bool[np.ndarray, "images images"],
) -> AdaptationExample:
    means = hub_means(transformed, transformed, same)
    hub = int(means.argmax())
    similarities = np.where(same[hub], -np.inf, transformed @ transformed[hub])
    nearest = np.argsort(-similarities, kind="stable")[:_SHOWN]
    titles = [
        f"hub: {means[hub]:.2f} against {np.median(means):.2f}",
        *(f"elsewhere: {similarities[n]:.2f}" for n in nearest),
    ]
    return AdaptationExample(tuple(ids[[hub, *nearest]].tolist()), tuple(titles))


def _corrected(
    ids: Int64[np.ndarray, " images"],
    extracted: Float32[np.ndarray, "images images"],
    adapted: Float32[np.ndarray, "images images"],
    same: Bool[np.ndarray, "images images"],
    spot: Bool[np.ndarray, "images images"],
) -> AdaptationExample | None:
    """Find the image with a wrong first match as extracted and a correct one as adapted, with the largest margin."""
    right, rows = same & ~spot, np.arange(len(ids))
    before = np.where(spot, -np.inf, extracted).argmax(axis=1)
    after = np.where(spot, -np.inf, adapted).argmax(axis=1)
    corrected = ~right[rows, before] & right[rows, after]
    if not corrected.any():
        return None
    margin = np.where(corrected, adapted[rows, after] - adapted[rows, before], -np.inf)
    query = int(margin.argmax())
    chosen = [query, int(before[query]), int(after[query])]
    titles = ("image of the map", "first as extracted: elsewhere", "first as adapted: same place")
    return AdaptationExample(tuple(ids[chosen].tolist()), titles)


def _panel(image: Image) -> Image:
    return scaled(image, _PANEL_WIDTH_PX / image_size(image).width)


def _grid(rows: Sequence[Sequence[Image]]) -> Image:
    width = max(len(row) for row in rows) * (_PANEL_WIDTH_PX + _GAP_PX) - _GAP_PX
    heights = [max(len(panel) for panel in row) for row in rows]
    canvas = np.full((sum(heights) + _GAP_PX * (len(rows) - 1), width, 3), _GREY, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for number, panel in enumerate(row):
            left = number * (_PANEL_WIDTH_PX + _GAP_PX)
            size = image_size(panel)
            canvas[top : top + size.height, left : left + size.width] = panel
        top += height + _GAP_PX
    return canvas
