"""Texture: blank images, images that are blank in parts, and those of models."""

import numpy as np
import pytest
import torch

from tests.shared.blanks import BLANKS, noise
from tests.shared.patches import texture
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.texture import textured_cells, usable_cells
from vpr_dhe.records import Grid
from vpr_dhe.synthetic_town.town import SyntheticTown
from vpr_dhe.verification.estimators.base import View, match_by_grid

GRIDS = [Grid(24, 24), Grid(16, 16), Grid(7, 7)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", BLANKS)
def test_no_cell_of_a_blank_image_is_usable(name, grid):
    assert not usable_cells(BLANKS[name], grid).any()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(400, 300), (64, 48), (1600, 1200)])
def test_all_cells_of_a_textured_image_are_usable(size, grid):
    assert usable_cells(texture(*size), grid).all()


def test_cells_of_the_covered_part_of_an_image_are_not_usable():
    image = texture(384, 384)
    image[:, 160:] = noise(8, 2, (384, 224))
    usable = usable_cells(image, Grid(24, 24)).reshape(24, 24)
    assert usable[:, :9].all()
    assert not usable[:, 12:].any()


def test_a_night_street_with_lights_is_not_blank():
    image, random = noise(5, 3), np.random.default_rng(1)
    for x, y in zip(random.integers(20, 360, 25), random.integers(60, 200, 25), strict=True):
        image[y : y + 8, x : x + 6] = 230
    usable = usable_cells(image, Grid(24, 24))
    assert usable.any()
    assert not usable.all()


def test_texture_depends_neither_on_brightness_nor_on_shading():
    image = (texture(384, 288) // 3).astype(np.float64)
    shaded = (image + 150 * np.linspace(0, 1, 384)[:, None]).astype(np.uint8)
    grid = Grid(24, 24)
    assert (textured_cells(image.astype(np.uint8), grid) == textured_cells(shaded, grid)).mean() > 0.98


# A local head leaves out cells of sky and road besides.
@pytest.mark.parametrize(
    ("model", "least"), [("sift-vlad", 1), ("cct-offline", 1), ("lite-vlad", 0.5), ("cct-lite", 0.5)]
)
def test_blank_images_of_every_kind_of_model_match_nothing(model, least):
    extractor, town = load_extractor(model), SyntheticTown(0)
    view = town.render(town.database_cameras()[0])
    blank, other, street = extractor.extract([BLANKS["dark room"], BLANKS["shaded wall"], view])
    assert blank.is_blank
    assert other.is_blank
    norms = street.local_map.norm(dim=1)
    torch.testing.assert_close(norms, (norms > 0).float(), rtol=0, atol=1e-4)
    assert (norms > 0).float().mean() >= least
    maps = torch.stack([other.local_map, street.local_map, blank.local_map])
    assert all(len(match_by_grid(blank, maps, extractor.spec)(row).similarity) == 0 for row in range(3))
    assert View(blank.frame, lambda: BLANKS["dark room"], lambda: blank).is_blank
