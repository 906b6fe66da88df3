"""Weighted least-squares homographies, with the weight of each match predicted by a small network (dhe-lite).

The network sees the positions of each match and its similarity, so it works with any grid, and takes under a
millisecond in batches. Variants that were tried are in `docs/experiments/notes.md`.

Source: Yi et al., "Learning to find good correspondences", CVPR 2018 (context normalisation and weighted fit); Sun et
al., "ACNe: attentive context normalization for robust permutation-equivariant learning", CVPR 2020 (weights inside).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vpr_dhe.errors import ModelError, VerifierError
from vpr_dhe.geometry.coordinates import UNIT, homographies_between_originals, resizing
from vpr_dhe.geometry.homography import is_usable, project
from vpr_dhe.geometry.weighted_homography import weighted_homography
from vpr_dhe.models.exported_model import HEAD, ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Frame
from vpr_dhe.verification.estimators.base import MIN_MATCHES, Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import DHE_LITE

HEAD_NAME = DHE_LITE
WIDTH = 64
BLOCKS = 8
_MIDDLE = 0.5
# Rounds in which weights also depend on residuals, as the count of inliers does.
_LEARNED_ROUNDS = 2
_REFINING_ROUNDS = 3
# Keeps the fit finite where no match is trusted.
_MIN_WEIGHT = 1e-6
_NORM_FLOOR = 1e-3


class MatchBatch(NamedTuple):
    """Matches of many pairs, padded to one length; `present` marks matches that are not padding.

    Points are in `UNIT` frames; `tolerance` is that of the matches, in the unit frame of the candidate (x, y).
    """

    query: Float64[Tensor, "pairs matches 2"]
    candidate: Float64[Tensor, "pairs matches 2"]
    similarity: Float[Tensor, "pairs matches"]
    present: Bool[Tensor, "pairs matches"]
    tolerance: Float64[Tensor, "pairs 2"]


class DheLiteHead(nn.Module):
    """Network that predicts a confidence for each match of a pair, whatever their number and order."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(7, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(BLOCKS))
        self.logit = nn.Linear(WIDTH, 1)

    def forward(self, batch: MatchBatch) -> Float[Tensor, "pairs matches"]:
        """Predict the logit of each match being right: an inlier of a plane visible in both images."""
        query, candidate = batch.query - _MIDDLE, batch.candidate - _MIDDLE
        points = torch.cat([query, candidate - query, candidate], dim=-1).to(self.embed.weight)
        present = batch.present.unsqueeze(-1).to(points)
        tokens = self.embed(torch.cat([points, batch.similarity.unsqueeze(-1).to(points)], dim=-1) * present)
        for block in self.blocks:
            tokens = block(tokens, present)
        return self.logit(tokens).squeeze(-1)


class OnnxDheLiteHead(nn.Module):
    """Exported dhe-lite network."""

    def __init__(self, session: OnnxSession) -> None:
        super().__init__()
        self._session = session

    def forward(self, batch: MatchBatch) -> Float[Tensor, "pairs matches"]:
        """Predict the logits as `DheLiteHead` does."""
        (logits,) = self._session(batch.query, batch.candidate, batch.similarity, batch.present)
        return logits


class _Block(nn.Module):
    """Residual block that compares each match with the others of its pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = _ContextNorm(), _ContextNorm()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(
        self, tokens: Float[Tensor, "pairs matches width"], present: Float[Tensor, "pairs matches 1"]
    ) -> Float[Tensor, "pairs matches width"]:
        hidden = self.first(self.first_norm(tokens, present).relu())
        return tokens + self.second(self.second_norm(hidden, present).relu())


class _ContextNorm(nn.Module):
    """Normalisation of each channel over the matches of a pair (Yi et al., equation 4), then scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(
        self, tokens: Float[Tensor, "pairs matches width"], present: Float[Tensor, "pairs matches 1"]
    ) -> Float[Tensor, "pairs matches width"]:
        count = present.sum(dim=1, keepdim=True).clamp(min=1)
        centred = (tokens - (tokens * present).sum(dim=1, keepdim=True) / count) * present
        variance = centred.square().sum(dim=1, keepdim=True) / count
        return centred * (variance + _NORM_FLOOR).rsqrt() * self.scale + self.shift


def fit_homographies(batch: MatchBatch, logits: Float[Tensor, "pairs matches"]) -> list[Float64[Tensor, "pairs 3 3"]]:
    """Fit a homography per pair, between `UNIT` frames and up to scale; returns the result of each round.

    The last round is the estimate; losses use all. The first weighs matches by confidence alone, the others also by a
    Geman-McClure kernel of the residual.
    """
    trust = logits.double().sigmoid()
    confidence, root = trust * batch.present, trust.sqrt() * batch.present
    homography = weighted_homography(confidence + _MIN_WEIGHT * batch.present, batch.query, batch.candidate)
    rounds = [homography]
    for weight in [confidence] * _LEARNED_ROUNDS + [root] * _REFINING_ROUNDS:
        apart = (project(homography, batch.query) - batch.candidate) / batch.tolerance.unsqueeze(1)
        kernel = (1 + apart.square().sum(dim=-1)).pow(-2)
        weights = weight * kernel + _MIN_WEIGHT * batch.present
        homography = weighted_homography(weights, batch.query, batch.candidate)
        rounds.append(homography)
    return rounds


def batch_matches(query: View, candidates: Sequence[View]) -> MatchBatch:
    """Pad the matches of a query with its candidates, of which there is at least one."""
    matches = [view.matches for view in candidates]
    to_unit = resizing(query.frame.input_size, UNIT)
    to_units = [resizing(view.frame.input_size, UNIT) for view in candidates]
    lengths = torch.tensor([len(match.similarity) for match in matches])
    return MatchBatch(
        pad_sequence([project(to_unit, match.query_points.cpu()) for match in matches], batch_first=True),
        pad_sequence(
            [project(unit, match.candidate_points.cpu()) for unit, match in zip(to_units, matches, strict=True)],
            batch_first=True,
        ),
        pad_sequence([match.similarity.cpu() for match in matches], batch_first=True),
        torch.arange(int(lengths.max())) < lengths[:, None],
        torch.stack([match.tolerance_px * unit.diagonal()[:2] for unit, match in zip(to_units, matches, strict=True)]),
    )


def load_head(model: ModelFile) -> DheLiteHead:
    """Load the head of a model file.

    Raises:
        ModelError: if the weights of the file's head are not exactly those of a dhe-lite head.
    """
    head = DheLiteHead()
    try:
        head.load_state_dict({name: value.float() for name, value in model.part("head").items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the head of model {model.name!r} is not a {HEAD_NAME} head: {reason}; convert it again"
        ) from error
    return head


class DheLiteEstimator(HomographyEstimator):
    """Estimates homographies from `View.matches` with a dhe-lite head, `batch_size` candidates at a time."""

    name = HEAD_NAME
    coarse_pass = True

    def __init__(self, head: DheLiteHead | OnnxDheLiteHead, *, batch_size: int = 32) -> None:
        self.head = head.eval()
        self.batch_size = batch_size

    @classmethod
    def from_model(cls, model: ModelFile | ExportedModel | None) -> "DheLiteEstimator":
        """Load the head of a model file or an export.

        Raises:
            VerifierError: if there is no head.
            ModelError: if the weights are damaged or not those of a dhe-lite head.
        """
        if model is None or model.architecture.head != HEAD_NAME:
            found = "there is no model file" if model is None else f"model {model.name!r} holds no {HEAD_NAME} head"
            raise VerifierError(f"{found}; train a head, or use another verifier such as magsac")
        return cls(OnnxDheLiteHead(model.session(HEAD)) if isinstance(model, ExportedModel) else load_head(model))

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; fewer than four matches or a degenerate fit are failures."""
        if not candidates:
            return Homographies(torch.empty(0, 3, 3, dtype=torch.float64), torch.empty(0, dtype=torch.bool))
        between_units = torch.empty(len(candidates), 3, 3, dtype=torch.float64)
        counts = torch.tensor([len(view.matches.similarity) for view in candidates])
        # Sorted by the number of matches, because padding costs as much as matches.
        for chosen in counts.argsort(stable=True).split(self.batch_size):
            between_units[chosen] = self._fit(query, [candidates[index] for index in chosen.tolist()])
        query_frame, *candidate_frames = [Frame(view.frame.image_size, UNIT) for view in (query, *candidates)]
        between_originals = homographies_between_originals(between_units, query_frame, candidate_frames)
        return Homographies.of(between_originals, is_usable(between_originals) & (counts >= MIN_MATCHES))

    @torch.inference_mode()
    def _fit(self, query: View, candidates: Sequence[View]) -> Float64[Tensor, "candidates 3 3"]:
        batch = batch_matches(query, candidates)
        if batch.present.shape[1] < MIN_MATCHES:
            return torch.zeros(len(candidates), 3, 3, dtype=torch.float64)
        logits = self.head(batch)
        on_device = MatchBatch(*(part.to(logits.device) for part in batch))
        return fit_homographies(on_device, logits)[-1].cpu()


def build(_: str, resources: Resources) -> DheLiteEstimator:
    """Build the estimator with the head of the model; see `DheLiteEstimator.from_model`."""
    return DheLiteEstimator.from_model(resources.model)
