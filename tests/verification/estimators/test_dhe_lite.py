"""The network's symmetries, its fit against known homographies, and the estimator as the registry builds it."""

from dataclasses import replace

import pytest
import torch

from vpr_dhe.errors import ModelError, VerifierError
from vpr_dhe.geometry.coordinates import UNIT, corners, homographies_between_inputs, resizing
from vpr_dhe.geometry.homography import four_point_homography, mean_corner_error, project
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Frame, Matches, Preprocessing, Size
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.dhe_lite import (
    DheLiteEstimator,
    DheLiteHead,
    MatchBatch,
    batch_matches,
    fit_homographies,
)

INPUT = Size(384, 384)
FRAMES = [Frame(Size(640, 480), INPUT), Frame(Size(300, 500), Size(320, 240)), Frame(INPUT, INPUT)]


@pytest.fixture
def head() -> DheLiteHead:
    torch.manual_seed(0)
    return DheLiteHead().eval()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_homography(seed: int, size: Size = INPUT) -> torch.Tensor:
    """From input pixels of the query to those of a candidate, each corner moved by up to a sixth of the side."""
    moves = (random(4, 2, seed=seed) - 0.5) * torch.tensor(size) / 3
    return four_point_homography(corners(INPUT), corners(size) + moves)


def some_matches(truth: torch.Tensor, inliers: int, outliers: int, seed: int, size: Size = INPUT) -> Matches:
    """Exact matches first, then false ones anywhere."""
    source = random(inliers + outliers, 2, seed=seed) * 383
    target = project(truth, source)
    target[inliers:] = random(outliers, 2, seed=seed + 1) * (torch.tensor(size) - 1)
    return Matches(source, target, random(len(source), seed=seed + 2).float(), tolerance_px=24.0)


def view(frame: Frame, matches: Matches | None = None) -> View:
    def no_image():
        raise AssertionError("an estimator from matches has no business with pixels")

    return View(frame, no_image, matches=None if matches is None else lambda: matches)


def a_batch(*counts: int) -> MatchBatch:
    candidates = [
        view(INPUT_FRAME, some_matches(a_homography(seed), count, count, seed)) for seed, count in enumerate(counts)
    ]
    return batch_matches(view(INPUT_FRAME), candidates)


INPUT_FRAME = FRAMES[2]


def test_has_at_most_three_million_parameters_and_gives_a_logit_per_match(head):
    assert sum(value.numel() for value in head.parameters()) <= 3_000_000
    assert head(a_batch(10, 30)).shape == (2, 60)


@torch.no_grad()
def test_order_of_matches_does_not_matter(head):
    batch = a_batch(40)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    shuffled = batch._replace(
        **{name: getattr(batch, name)[:, order] for name in ("query", "candidate", "similarity", "present")}
    )
    logits, logits_shuffled = head(batch), head(shuffled)
    torch.testing.assert_close(logits_shuffled, logits[:, order], rtol=1e-4, atol=1e-4)
    fitted, again = (fit_homographies(*pair)[-1] for pair in ((batch, logits), (shuffled, logits_shuffled)))
    assert mean_corner_error(again, fitted, corners(UNIT)).item() < 1e-3


@torch.no_grad()
def test_padding_does_not_matter(head):
    alone, together = a_batch(15), a_batch(15, 60)
    logits, padded = head(alone), head(together)[:1]
    torch.testing.assert_close(padded[:, :30], logits, rtol=1e-4, atol=1e-4)
    first = MatchBatch(*(part[:1] for part in together))
    fitted, again = fit_homographies(alone, logits)[-1], fit_homographies(first, padded)[-1]
    assert mean_corner_error(again, fitted, corners(UNIT)).item() < 1e-3


@pytest.mark.parametrize("last", [0, -1])
def test_ideal_confidences_recover_the_homography(last):
    truth = a_homography(3)
    batch = batch_matches(view(INPUT_FRAME), [view(INPUT_FRAME, some_matches(truth, 40, 60, 3))])
    ideal = torch.where(torch.arange(100) < 40, 30.0, -30.0)[None]
    to_unit = resizing(INPUT, UNIT)
    found = to_unit.inverse() @ fit_homographies(batch, ideal)[last] @ to_unit
    assert mean_corner_error(found, truth[None], corners(INPUT)).item() < 0.5


def test_every_weight_gets_a_gradient(head):
    batch = a_batch(20, 25)
    loss = torch.stack([found.square().sum() for found in fit_homographies(batch, head(batch))]).sum()
    loss.backward()
    for name, value in head.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


class _Oracle(DheLiteHead):
    """Trusts the first half of the matches of each pair."""

    def forward(self, batch: MatchBatch) -> torch.Tensor:
        half = batch.present.sum(dim=1, keepdim=True) // 2
        return torch.where(torch.arange(batch.present.shape[1]) < half, 20.0, -20.0)


def test_homographies_are_between_originals_of_any_size():
    truths = [a_homography(seed, frame.input_size) for seed, frame in enumerate(FRAMES)]
    candidates = [
        view(frame, some_matches(truth, 50, 50, seed, frame.input_size))
        for seed, (truth, frame) in enumerate(zip(truths, FRAMES, strict=True))
    ]
    found = DheLiteEstimator(_Oracle()).estimate(view(FRAMES[0]), candidates)
    assert found.valid.all()
    assert (found.matrices[:, 2, 2] == 1).all()
    in_inputs = homographies_between_inputs(found.matrices, FRAMES[0], FRAMES)
    for index, frame in enumerate(FRAMES):
        assert mean_corner_error(in_inputs[index], truths[index], corners(frame.input_size)).item() < 0.5


def test_failures_are_marked_and_never_nan(head):
    line = torch.linspace(10, 300, 20, dtype=torch.float64)
    points = {
        "nothing": torch.empty(0, 2, dtype=torch.float64),
        "three": random(3, 2) * 383,
        "one line": torch.stack([line, line], dim=1),
        "one point": torch.full((20, 2), 50.0, dtype=torch.float64),
        "anywhere": random(40, 2) * 383,
    }
    candidates = [view(INPUT_FRAME, Matches(value, value, torch.ones(len(value)), 24.0)) for value in points.values()]
    found = DheLiteEstimator(head, batch_size=2).estimate(view(INPUT_FRAME), candidates)
    assert torch.isfinite(found.matrices).all()
    assert found.valid[:2].tolist() == [False, False]
    assert torch.equal(found.matrices[:2], torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    assert found.valid[-1]
    assert DheLiteEstimator(head).estimate(view(INPUT_FRAME), []).matrices.shape == (0, 3, 3)


def test_repeats_and_depends_little_on_the_batch(head):
    candidates = [view(INPUT_FRAME, some_matches(a_homography(seed), 25, 5 * seed, seed)) for seed in range(5)]
    estimator = DheLiteEstimator(head, batch_size=2)
    found, again = (estimator.estimate(view(INPUT_FRAME), candidates).matrices for _ in range(2))
    assert torch.equal(found, again)
    alone = torch.cat([estimator.estimate(view(INPUT_FRAME), [one]).matrices for one in candidates])
    assert mean_corner_error(alone, found, corners(INPUT)).max() < 0.1


def a_model(head: DheLiteHead, name: str | None = "dhe-lite") -> ModelFile:
    return ModelFile(
        name="lite",
        architecture=Architecture("sift-vlad", "vlad", head=name),
        preprocessing=Preprocessing(384, 384, "area", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        licence="Apache-2.0",
        training_data="none",
        tensors={f"head.{key}": value.half() for key, value in head.state_dict().items()},
    )


def test_is_built_from_a_model_file(head):
    estimator = DheLiteEstimator.from_model(a_model(head))
    assert isinstance(estimator, DheLiteEstimator)
    torch.testing.assert_close(estimator.head.embed.weight, head.embed.weight, rtol=1e-3, atol=1e-3)


def test_models_without_such_a_head_are_explained(head):
    with pytest.raises(VerifierError, match="model 'lite' holds no dhe-lite head"):
        DheLiteEstimator.from_model(a_model(head, name=None))
    with pytest.raises(VerifierError, match="no model file"):
        DheLiteEstimator.from_model(None)
    broken = a_model(head)
    broken = replace(broken, tensors={name: value for name, value in broken.tensors.items() if "logit" not in name})
    with pytest.raises(ModelError, match="is not a dhe-lite head"):
        DheLiteEstimator.from_model(broken)
