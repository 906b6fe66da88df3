"""The coarse stage: cells of every scale lie where they belong, and a homography is found across scales."""

import cv2
import numpy as np
import pytest
import torch
from patches import PatchExtractor, texture

from vpr_dhe.geometry.coordinates import UNIT, corners, resizing
from vpr_dhe.geometry.homography import four_point_homography, mean_corner_error, project
from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.ransac_flow.coarse import (
    SCALES,
    CoarseMatches,
    cells_of,
    extract_scales,
    fit,
    match_cells,
)

EXTRACTOR = PatchExtractor()


def test_one_scale_is_what_the_index_holds():
    image = texture()
    found, indexed = extract_scales(image, EXTRACTOR, (1.0,)), cells_of(EXTRACTOR.extract([image])[0])
    assert torch.allclose(found.centres, indexed.centres)
    assert torch.allclose(found.descriptors, indexed.descriptors, atol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_cells_lie_in_the_image_and_as_densely_as_the_scale_says(scale):
    centres = extract_scales(texture(), EXTRACTOR, (scale,)).centres
    assert bool(((centres > -0.5) & (centres < 1.5)).all())
    steps = centres[:, 0].unique().diff()
    assert float(steps[steps > 1e-9].max()) <= 2 / (24 * scale) + 1e-9


@pytest.mark.parametrize("scale", [0.5, 1.33, 2.0])
def test_a_cell_describes_what_lies_at_its_centre(scale):
    image = texture()
    cells = extract_scales(image, EXTRACTOR, (scale,))
    zoomed = cv2.resize(
        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    for index in range(0, len(cells.centres), 97):
        x, y = project(resizing(UNIT, Size(zoomed.shape[1], zoomed.shape[0])), cells.centres[index : index + 1])[0]
        half_width, half_height = 400 / 48, 300 / 48
        left, top = x - half_width + 0.5, y - half_height + 0.5
        if left < 1 or top < 1 or x + half_width > zoomed.shape[1] - 2 or y + half_height > zoomed.shape[0] - 2:
            continue
        move = np.array(
            [
                [8 / (2 * half_width), 0, (0.5 - left) * 8 / (2 * half_width) - 0.5],
                [0, 8 / (2 * half_height), (0.5 - top) * 8 / (2 * half_height) - 0.5],
            ]
        )
        patch = cv2.warpAffine(cv2.cvtColor(zoomed, cv2.COLOR_RGB2GRAY), move, (8, 8)).astype(np.float64).ravel()
        similarity = np.corrcoef(patch, cells.descriptors[index].numpy())[0, 1]
        assert similarity > 0.8, (scale, index, similarity)


def test_finds_a_homography_between_unlike_scales():
    image = texture(seed=1)
    zoom = np.array([[1.8, 0, -140], [0, 1.8, -130], [0, 0, 1.0]])
    closer = cv2.warpPerspective(image, zoom, (400, 300))
    (matches,) = match_cells(extract_scales(image, EXTRACTOR), [cells_of(EXTRACTOR.extract([closer])[0])])
    found = fit(matches)
    assert found is not None
    size = Size(400, 300)
    estimate = resizing(UNIT, size) @ found.homography @ resizing(size, UNIT)
    assert float(mean_corner_error(estimate / estimate[2, 2], torch.from_numpy(zoom), corners(size))) < 12
    (single,) = match_cells(extract_scales(image, EXTRACTOR, (1.0,)), [cells_of(EXTRACTOR.extract([closer])[0])])
    alone = fit(single)
    assert alone is None or int(alone.inliers.sum()) < int(found.inliers.sum())


def some_matches(outliers):
    generator = torch.Generator().manual_seed(2)
    square = corners(UNIT) * 1.0
    truth = four_point_homography(square, square + 0.2 * torch.rand(4, 2, generator=generator, dtype=torch.float64))
    query = 2 * torch.rand(60 + outliers, 2, generator=generator, dtype=torch.float64) - 0.5
    candidate = project(truth, query)
    candidate[60:] = 2 * torch.rand(outliers, 2, generator=generator, dtype=torch.float64) - 0.5
    return truth, CoarseMatches(query, candidate)


def test_fits_among_outliers_and_marks_the_inliers():
    truth, matches = some_matches(60)
    found = fit(matches)
    assert found is not None
    assert float(mean_corner_error(found.homography, truth, corners(UNIT))) < 0.02
    assert bool(found.inliers[:60].all())
    assert int(found.inliers[60:].sum()) < 10


def test_mirrors_and_too_few_matches_are_no_fit():
    _, matches = some_matches(0)
    mirrored = CoarseMatches(matches.query, matches.candidate * torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert fit(mirrored) is None
    assert fit(CoarseMatches(matches.query[:3], matches.candidate[:3])) is None
    one_point = matches.query[:1].expand(10, 2)
    assert fit(CoarseMatches(one_point, one_point)) is None
