"""Two streets that share nothing but their clouds do not verify: `lite-vlad` matches no sky."""

from functools import partial
from itertools import pairwise

import cv2
import numpy as np
import pytest

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.synthetic_town.town import SyntheticTown
from vpr_dhe.verification.build import build_verifier
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.estimators.resources import Resources

SKY = 0.4  # of the image, from above
SEEDS = range(2000, 2006)


@pytest.fixture(scope="module")
def extractor():
    return load_extractor(LITE_VLAD)


@pytest.fixture(scope="module")
def streets():
    """One view of each of several towns."""
    towns = [SyntheticTown(seed) for seed in SEEDS]
    cameras = [town.database_cameras() for town in towns]
    return [town.render(of[len(of) // 3]) for town, of in zip(towns, cameras, strict=True)]


def with_sky(street, seed):
    """The lower part of a street below billowing clouds, of another shape than those of the training."""
    height, width = round(SKY * street.shape[0]), street.shape[1]
    random, thickness = np.random.default_rng(seed), np.zeros((height, width), np.float32)
    for octave in range(2, 7):
        waves = random.normal(size=(2**octave, 2**octave)).astype(np.float32)
        thickness += np.abs(cv2.resize(waves, (width, height))) / 2 ** (0.8 * octave)
    thickness = cv2.normalize(thickness, None, 0, 1, cv2.NORM_MINMAX)[..., None]
    clouds = thickness * (250, 250, 252) + (1 - thickness) * (100, 145, 215)
    return np.concatenate([clouds.astype(np.uint8), street[height:]])


def inliers(extractor, query, candidate):
    """Inliers of `magsac` between two images."""
    verifier = build_verifier("magsac", Resources(extractor))
    of_query, of_candidate = extractor.extract([query, candidate])
    matches = match_by_grid(of_query, of_candidate.local_map[None], extractor.spec)
    views = [
        View(found.frame, lambda: pytest.fail("magsac needs no image"), lambda found=found: found, matched)
        for found, matched in ((of_query, None), (of_candidate, partial(matches, 0)))
    ]
    return verifier.verify(views[0], views[1:])[0].inliers


def test_sky_gets_no_descriptors_and_streets_keep_theirs(extractor, streets):
    for number, street in enumerate(streets):
        (found,) = extractor.extract([with_sky(street, number)])
        kept = found.local_map.any(dim=1).reshape(found.grid).float()
        # The row at the skyline sees both.
        edge = round(SKY * found.grid.rows)
        assert float(kept[: edge - 1].mean()) < 0.15
        assert float(kept[edge + 1 :].mean()) > 0.75


def test_the_same_clouds_add_hardly_an_inlier(extractor, streets):
    for number, (query, candidate) in enumerate(pairwise(streets)):
        apart = inliers(extractor, with_sky(query, number), with_sky(candidate, number + 100))
        shared = inliers(extractor, with_sky(query, number), with_sky(candidate, number))
        assert shared <= apart + 10
