"""Any matcher of the package vismatch, which runs on both images of a pair.

Source: https://github.com/gmberton/vismatch, whose matchers have licences of their own.
"""

import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from vpr_dhe.errors import DownloadError, MatcherError, MissingExtraError, VprDheError
from vpr_dhe.runtime.extras import import_extra
from vpr_dhe.runtime.text import one_line
from vpr_dhe.verification.estimators.base import MatchedViews, View
from vpr_dhe.verification.estimators.matchers.base import (
    MatcherEstimator,
    contained,
    input_frame,
    matched_view,
    network_input,
)
from vpr_dhe.verification.estimators.registry import VISMATCH_PREFIX
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import require_vismatch

_KEYS = ("matched_kpts0", "matched_kpts1")
_DOWNLOADERS = ("gdown", "http", "httpx", "huggingface_hub", "py3_wget", "requests", "urllib", "urllib3")
_MAX_REASON = 200

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """Matches of one pair, in pixels of its inputs."""

    query_points: Float64[Tensor, "matches 2"]
    candidate_points: Float64[Tensor, "matches 2"]
    similarity: Float[Tensor, " matches"]


class VismatchEstimator(MatcherEstimator):
    """Estimates from the matches of a matcher of vismatch.

    Args:
        matcher: name of the matcher, as vismatch gives it.
        device: a torch device.

    Raises:
        MissingExtraError: if vismatch, or a package that the matcher needs, is not installed.
        VerifierError: if there is no such matcher.
        DownloadError: if its weights cannot be downloaded.
        MatcherError: if it cannot be built for another reason.
    """

    def __init__(self, matcher: str, device: str = "cpu") -> None:
        super().__init__()
        self.name = f"{VISMATCH_PREFIX}{matcher}"
        self._arguments = matcher, device
        self._device = device
        with contained(device):
            self._matcher = _build(import_extra("matchers", "vismatch"), matcher, device)
        self._has_failed = False

    def __reduce__(self) -> tuple[type["VismatchEstimator"], tuple[str, str]]:
        """Build it again in another process: modules of vismatch belong to theirs."""
        return type(self), self._arguments

    def match(self, query: View, candidates: Sequence[View]) -> MatchedViews:
        """Match a query with each candidate, one pair at a time.

        Raises:
            MatcherError, MissingExtraError, DownloadError: if the matcher fails whatever the images.
        """
        image = network_input(query.image)
        views: list[View] = []
        for view in candidates:
            found = self._match_pair(image, network_input(view.decode()))
            views.append(matched_view(input_frame(view.frame.image_size), *found))
        return MatchedViews(View(input_frame(query.frame.image_size)), tuple(views))

    def _match_pair(self, query: Float32[Tensor, "3 _a _b"], candidate: Float32[Tensor, "3 _c _d"]) -> _Found:
        try:
            with contained(self._device), torch.inference_mode():
                result = self._matcher(query, candidate)
        except (ImportError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            raise _failure(self.name, error) from error
        except Exception as error:  # many fail on images without keypoints
            _log.log(
                logging.INFO if self._has_failed else logging.WARNING,
                "%s failed on a pair of images, which counts as no matches (%s)",
                self.name,
                _reason(error),
            )
            self._has_failed = True
            return _Found(torch.empty(0, 2).double(), torch.empty(0, 2).double(), torch.empty(0))
        return _found_in(result, self.name)


def _build(vismatch: ModuleType, matcher: str, device: str) -> Any:
    require_vismatch(matcher, vismatch.available_models)
    name = f"{VISMATCH_PREFIX}{matcher}"
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it announces each of several attempts
    try:
        built = vismatch.get_matcher(matcher, device=device)
    except Exception as error:
        raise _failure(name, error) from error
    finally:
        hub.setLevel(level)
    built.skip_ransac = True  # its homography is not used
    return built


def _found_in(result: dict[str, Any], name: str) -> _Found:
    """Matches in the result of a matcher; those that are not finite are left out."""
    if any(key not in result for key in _KEYS):
        raise MatcherError(
            f"{name} returned {', '.join(result) or 'nothing'}; expected {' and '.join(_KEYS)}, as from vismatch 1.4"
        )
    query, candidate = (np.asarray(result[key], np.float64).reshape(-1, 2) for key in _KEYS)
    confidences = result.get("matched_confidences")
    similarity = np.ones(len(query)) if confidences is None else np.asarray(confidences, np.float64)
    finite = np.isfinite(query).all(axis=1) & np.isfinite(candidate).all(axis=1)
    return _Found(*(torch.from_numpy(values[finite]) for values in (query, candidate, similarity)))


def _failure(name: str, error: BaseException) -> VprDheError:
    """Error for a matcher that cannot work here, by what it failed for."""
    if isinstance(error, ImportError):
        return MissingExtraError(
            f"{name} needs a package that cannot be imported here ({_reason(error)}); install what vismatch names for "
            'this matcher, or all with: pip install "vpr-dhe[matchers]"'
        )
    chain = _chain(error)
    if any(isinstance(one, OSError) or _is_of_downloader(one) for one in chain):
        return DownloadError(
            f"{name} needs weights that are not on disk and cannot be downloaded ({_reason(chain[-1])}); run it once "
            "with a network, or use a verifier that needs no download, such as magsac"
        )
    return MatcherError(
        f"{name} failed ({type(error).__name__}: {_reason(error)}); expected a matcher that works with this version of "
        "vismatch and device; use another verifier"
    )


def _is_of_downloader(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _DOWNLOADERS


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those that it came from, down to the first."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _reason(error: BaseException) -> str:
    """First line of the message of an error."""
    text = str(error).strip() or type(error).__name__
    return one_line(text.splitlines()[0])[:_MAX_REASON]


def build(name: str, resources: Resources) -> VismatchEstimator:
    """Build the estimator of a matcher; its name follows the prefix."""
    return VismatchEstimator(name.removeprefix(VISMATCH_PREFIX), resources.device)
