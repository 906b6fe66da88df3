"""Matchers of vismatch, for which a package with known answers stands."""

import pickle
import sys

import fake_vismatch
import numpy as np
import pytest
import torch

from vpr_dhe.errors import DownloadError, MatcherError, MissingExtraError, VerifierError
from vpr_dhe.geometry.coordinates import corners, resizing
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.alignment import align
from vpr_dhe.verification.build import build_estimator, build_verifier
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.matchers.base import SIDE_PX, input_frame
from vpr_dhe.verification.names import require_verifier, verifiers_beginning_with

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
LARGE = np.random.default_rng(1).integers(0, 256, (600, 1000, 3), np.uint8)


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch) -> None:
    fake_vismatch.install(tmp_path / "site", monkeypatch)


def view(image: np.ndarray) -> View:
    return View(Frame(image_size(image), Size(320, 320)), lambda: image)


def oracle(query: Size, candidate: Size) -> torch.Tensor:
    """The known homography, between pixels of the originals."""
    inputs = torch.tensor(sys.modules["vismatch"].HOMOGRAPHY, dtype=torch.float64)
    to_input = resizing(query, input_frame(query).input_size)
    return resizing(input_frame(candidate).input_size, candidate) @ inputs @ to_input


@pytest.mark.parametrize(("query", "candidate"), [(IMAGE, IMAGE), (LARGE, IMAGE), (IMAGE, LARGE), (LARGE, LARGE)])
def test_the_homography_of_its_matches_is_found_in_pixels_of_the_originals(query, candidate):
    (found,) = build_verifier("vismatch:oracle").verify(view(query), [view(candidate)])
    expected = oracle(image_size(query), image_size(candidate))
    assert found.homography is not None
    error = mean_corner_error(torch.from_numpy(found.homography), expected, corners(image_size(query)))
    assert float(error) < 0.01 * max(image_size(candidate))


def test_the_score_counts_its_own_matches_that_agree():
    (found,) = build_verifier("vismatch:oracle").verify(view(IMAGE), [view(IMAGE)])
    right = len(range(8, 120, 16)) * len(range(8, 88, 16))
    assert right <= found.inliers <= 1.1 * right  # of as many wrong ones, some agree by chance
    assert found.score == found.inliers
    moved = np.c_[found.query_points, np.ones(found.inliers)] @ np.asarray(found.homography).T
    errors = np.linalg.norm(moved[:, :2] / moved[:, 2:] - found.candidate_points, axis=1)
    assert (errors < 12 / SIDE_PX * max(image_size(IMAGE))).all()


def test_it_sees_images_of_bounded_size():
    build_verifier("vismatch:oracle").verify(view(LARGE), [view(IMAGE)])
    assert sys.modules["vismatch"].calls == [("oracle", (3, 320, 512), (3, 96, 128))]


def test_random_matchers_give_the_same_answer_and_leave_random_states_alone():
    estimator = build_estimator("vismatch:scattered")
    torch.manual_seed(3)
    first = estimator.estimate(view(IMAGE), [view(IMAGE)])
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    again = estimator.estimate(view(IMAGE), [view(IMAGE)])
    assert torch.equal(first.matrices, again.matrices)
    assert torch.equal(torch.rand(2), expected)


def test_what_it_prints_is_not_in_the_results(capsys):
    build_verifier("vismatch:loud").verify(view(IMAGE), [view(IMAGE)])
    assert capsys.readouterr().out == ""


def test_a_pair_that_it_fails_on_has_no_matches_and_is_told_once(caplog):
    flat = np.full_like(IMAGE, 80)
    found = build_verifier("vismatch:sift").verify(view(IMAGE), [view(IMAGE), view(flat), view(flat)])
    assert found[0].inliers > 20
    assert [(one.inliers, one.homography) for one in found[1:]] == [(0, None)] * 2
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "vismatch:sift failed on a pair" in warnings[0].getMessage()


@pytest.mark.parametrize(
    ("name", "error", "words", "code"),
    [
        ("offline", DownloadError, "vismatch:offline needs weights.*no route to host.*magsac", 1),
        ("lacking", MissingExtraError, r"transforms3d.*pip install \"vpr-dhe\[matchers\]\"", 2),
        ("broken", MatcherError, "vismatch:broken failed .AttributeError: no attribute 'x'.; ", 1),
        ("sfit", VerifierError, "vismatch has no matcher 'sfit' .did you mean 'sift'", 2),
        ("", VerifierError, "vismatch has no matcher ''; available: oracle, ", 2),
    ],
)
def test_what_cannot_be_built_is_explained(name, error, words, code):
    with pytest.raises(error, match=words) as raised:
        build_estimator(f"vismatch:{name}")
    assert raised.value.exit_code == code
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "error"), [("late-offline", DownloadError), ("odd", MatcherError)])
def test_what_fails_whatever_the_images_is_an_error(name, error):
    with pytest.raises(error, match=f"vismatch:{name}"):
        build_verifier(f"vismatch:{name}").verify(view(IMAGE), [view(IMAGE)])


def test_names_are_known_without_importing_it():
    require_verifier("vismatch:oracle")
    with pytest.raises(VerifierError, match=r"did you mean 'oracle'\?"):
        require_verifier("vismatch:orcale")
    assert verifiers_beginning_with("vismatch:o") == ["vismatch:oracle", "vismatch:offline", "vismatch:odd"]
    assert verifiers_beginning_with("vis") == ["vismatch:"]
    assert "vismatch" not in sys.modules


def test_without_it_the_install_line_is_told(monkeypatch):
    fake_vismatch.remove(monkeypatch)
    with pytest.raises(MissingExtraError, match=r'pip install "vpr-dhe\[matchers\]"'):
        require_verifier("vismatch:oracle")
    assert verifiers_beginning_with("vismatch:") == []


def test_a_list_of_names_that_cannot_be_read_accepts_any(tmp_path):
    (tmp_path / "site/vismatch/__init__.py").write_text("available_models = sorted(['a'])\n")
    require_verifier("vismatch:whatever")


def test_it_can_be_sent_to_another_process():
    sent = pickle.loads(pickle.dumps(build_verifier("vismatch:oracle")))
    assert sent.estimator.name == "vismatch:oracle"
    assert sent.verify(view(IMAGE), [view(IMAGE)])[0].inliers > 20


def test_two_photos_are_aligned():
    found = align(IMAGE, IMAGE, method="vismatch:sift")
    assert found.homography is not None
    np.testing.assert_allclose(found.homography, np.eye(3), atol=0.02)
    assert found.inliers > 20
