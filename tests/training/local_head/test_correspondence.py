"""Corresponding cells against known positions and plain loops, and the loss of descriptors that follow them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.datasets.augmentation import random_homography
from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Grid, Size
from vpr_dhe.training.local_head.correspondence import (
    TEMPERATURE,
    Correspondence,
    corresponding_cells,
    head_loss,
    matched_cells,
)

GRID, SIZE = Grid(3, 4), Size(64, 48)
CELL_PX = 16.0
NO_SKY = torch.zeros(1, 12, dtype=torch.bool)


def shifted(cells_right):
    """Correspondence of a translation to the right."""
    homography = torch.eye(3, dtype=torch.float64)
    homography[0, 2] = cells_right * CELL_PX
    return corresponding_cells(homography[None], GRID, SIZE)


def test_the_identity_leads_each_cell_to_itself():
    found = shifted(0)
    torch.testing.assert_close(found.shares[0], torch.eye(12))
    assert found.inside.all()


def test_a_shift_leads_to_the_neighbour_and_out_of_the_image():
    found = shifted(1)
    assert found.inside[0].reshape(*GRID).tolist() == [[True, True, True, False]] * 3
    for cell in (0, 1, 2, 4, 9):
        assert found.shares[0, cell].nonzero().tolist() == [[cell + 1]]


def test_between_two_cells_both_share():
    found = shifted(0.25)
    assert found.shares[0, 5, 5:7].tolist() == pytest.approx([0.75, 0.25])


@given(st.integers(0, 10_000))
def test_shares_lead_to_the_projected_position(seed):
    homography = torch.from_numpy(random_homography(SIZE, np.random.default_rng(seed)))
    found = corresponding_cells(homography[None], GRID, SIZE)
    centres = cell_centres(GRID, SIZE)
    torch.testing.assert_close(found.shares[0].sum(dim=1), torch.ones(12))
    for cell, position in enumerate(project(homography, centres)):
        x, y = position.tolist()
        inside = -0.5 < x < SIZE.width - 0.5 and -0.5 < y < SIZE.height - 0.5
        assert bool(found.inside[0, cell]) == inside
        # Interpolation is exact between the centres of the outer cells.
        if 7.5 <= x <= SIZE.width - 8.5 and 7.5 <= y <= SIZE.height - 8.5:
            torch.testing.assert_close(found.shares[0, cell].double() @ centres, position, rtol=0, atol=1e-3)


def test_the_loss_is_that_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    similarity, logits = torch.rand(1, 12, 12, generator=generator), torch.randn(1, 12, generator=generator)
    truth = shifted(1)
    matching, reliability, right = [], [], 0
    for cell in range(12):
        row = similarity[0, cell].tolist()
        inside = bool(truth.inside[0, cell])
        found = inside and max(range(12), key=row.__getitem__) == cell + 1
        right += found
        logit = float(logits[0, cell])
        reliability.append(math.log1p(math.exp(-logit if found else logit)))
        if inside:
            total = sum(math.exp(value / TEMPERATURE) for value in row)
            matching.append(math.log(total) - row[cell + 1] / TEMPERATURE)
    loss = head_loss(similarity, logits, truth, NO_SKY)
    assert float(loss.matching) == pytest.approx(np.mean(matching), rel=1e-5)
    assert float(loss.reliability) == pytest.approx(np.mean(reliability), rel=1e-5)
    assert float(loss.found) == pytest.approx(right / len(matching))


def test_sky_is_not_reliable_though_it_is_found():
    similarity, sky = torch.eye(12)[None], torch.zeros(1, 12, dtype=torch.bool)
    sky[:, :4] = True
    logits = torch.where(sky, -20.0, 20.0)
    loss = head_loss(similarity, logits, shifted(0), sky)
    assert (float(loss.found), float(loss.reliability)) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert float(head_loss(similarity, logits, shifted(0), NO_SKY).reliability) > 5


def test_without_overlap_there_is_nothing_to_match():
    loss = head_loss(torch.rand(1, 12, 12), torch.full((1, 12), -20.0), shifted(50), NO_SKY)
    assert (float(loss.matching), float(loss.found)) == (0.0, 0.0)
    assert float(loss.reliability) < 1e-6


def test_matches_move_their_cells_and_leave_others_unknown():
    here = torch.tensor([[20.0, 8.0], [26.0, 6.0], [60.0, 40.0]], dtype=torch.float64)
    moves = torch.tensor([[16.0, 16.0], [8.0, 16.0], [0.0, 8.0]], dtype=torch.float64)
    found = matched_cells(here, here + moves, GRID, SIZE)
    assert found.known[0].nonzero().flatten().tolist() == [1, 11]
    # The two matches of cell 1 move by one and by half a cell to the right, and by one down.
    assert found.shares[0, 1].nonzero().flatten().tolist() == [5, 6]
    assert found.shares[0, 1, 5:7].tolist() == pytest.approx([0.25, 0.75])
    assert found.inside[0].nonzero().flatten().tolist() == [1]  # cell 11 leaves the image


@given(st.integers(0, 10_000))
def test_matches_at_all_centres_say_what_the_homography_says(seed):
    homography = torch.from_numpy(random_homography(SIZE, np.random.default_rng(seed), 0.1))
    centres = cell_centres(GRID, SIZE)
    by_matches = matched_cells(centres, project(homography, centres), GRID, SIZE)
    by_homography = corresponding_cells(homography[None], GRID, SIZE)
    torch.testing.assert_close(by_matches, by_homography)


def test_unknown_counterparts_count_only_as_sky():
    truth = shifted(0)
    unknown = truth._replace(inside=torch.zeros(1, 12, dtype=torch.bool), known=torch.zeros(1, 12, dtype=torch.bool))
    sky, logits = NO_SKY.clone(), torch.full((1, 12), 20.0)
    sky[0, 0] = True
    loss = head_loss(torch.eye(12)[None], logits, unknown, sky)
    assert float(loss.matching) == 0
    assert float(loss.reliability) == pytest.approx(20.0)
    both = Correspondence.joined([truth, unknown])
    loss = head_loss(torch.eye(12).expand(2, -1, -1), logits.expand(2, -1), both, NO_SKY.expand(2, -1))
    assert (float(loss.found), float(loss.reliability)) == pytest.approx((1.0, 0.0), abs=1e-6)
