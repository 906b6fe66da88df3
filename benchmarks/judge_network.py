"""Network that scores the candidates of a query by all their matches; `learned_judge.py` trains and measures it.

The matches of a pair are compared with one another by attentive context normalisation (Sun et al., "ACNe", CVPR 2020).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

WIDTH, BLOCKS = 32, 2
NOT_THERE = -1e9
_ATTENTION_OF_OTHERS = 0.1


@dataclass(frozen=True)
class Shortlists:
    """Matches of the verified candidates of all queries.

    A token is x and y in the query and in the candidate (`UNIT` frames), similarity, residual under the homography, and
    its x and y, in tolerances.
    """

    name: str
    queries: tuple[str, ...]
    tokens: Float[Tensor, "queries candidates matches 8"]
    there: Bool[Tensor, "queries candidates matches"]
    inliers: Float32[Tensor, "queries candidates"]
    similarity: Float32[Tensor, "queries candidates"]
    right: Bool[Tensor, "queries candidates"]
    present: Bool[Tensor, "queries candidates"]

    def chosen(self, rows: Tensor) -> "Shortlists":
        """Some of the queries; `queries` stay as they are."""
        names = ("tokens", "there", "inliers", "similarity", "right", "present")
        return Shortlists(self.name, self.queries, *(getattr(self, name)[rows] for name in names))

    def without_places(self) -> "Shortlists":
        """The same queries with the candidates that show their places taken out."""
        return replace(self, right=torch.zeros_like(self.right), present=self.present & ~self.right)


@dataclass(frozen=True)
class Design:
    """Whether a judge adds a same-place logit, and which part of the matches its layers do not get."""

    verdict: bool = False
    unseen: Literal["nothing", "positions", "similarity", "residuals"] = "nothing"


class Judge(nn.Module):
    """Scores the candidates of a query; before any training, by evidence."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.embed = nn.Linear(12, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(BLOCKS))
        self.weight = _from_zero(nn.Linear(WIDTH, 1))
        self.verdict = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), _from_zero(nn.Linear(WIDTH, 1)))
        self.scales = nn.Parameter(torch.ones(2))
        self.temperature, self.threshold = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, one: Shortlists) -> Float[Tensor, "queries candidates"]:
        """Score each candidate of some queries."""
        queries, candidates = one.present.shape
        tokens, there = one.tokens.flatten(0, 1).float(), one.there.flatten(0, 1).float()
        inlier = (tokens[..., 5] < 1) * there
        of_inliers, of_all = _shares(inlier), _shares(inlier + _ATTENTION_OF_OTHERS * there)
        hidden = self.embed(self._inputs(tokens))
        for block in self.blocks:
            hidden = block(hidden, of_all)
        weights = self.weight(hidden).squeeze(-1).clamp(-4, 4).exp() * tokens[..., 4].square() * inlier
        mean = weights.sum(dim=1) / inlier.sum(dim=1).clamp(min=1)  # not all matches have a token
        support = mean.unflatten(0, (queries, candidates)) * one.inliers
        scores = self.scales[0] * _contrasts(support, one) + self.scales[1] * one.similarity
        if self.design.verdict:
            pooled = torch.cat([(hidden * of_inliers).sum(dim=1), (hidden * of_all).sum(dim=1)], dim=1)
            scores = scores + self.verdict(pooled).unflatten(0, (queries, candidates)).squeeze(-1)
        return scores.masked_fill(~one.present, NOT_THERE)

    def _inputs(self, tokens: Float[Tensor, "pairs matches 8"]) -> Float[Tensor, "pairs matches 12"]:
        a, b, similarity, off, apart = tokens.split((2, 2, 1, 1, 2), dim=-1)
        near = 1 / (1 + off.square())
        inputs = {
            "positions": torch.cat([a - 0.5, b - a, b - 0.5], dim=-1),
            "similarity": 2 * similarity - 1,
            "residuals": torch.cat([off.clamp(max=3) / 3, near, apart.clamp(-3, 3) / 3, (off < 1).float()], dim=-1),
        }
        seen = [0 * values if name == self.design.unseen else values for name, values in inputs.items()]
        return torch.cat(seen, dim=-1)


class _Block(nn.Module):
    """Residual block that compares each match with the others of its pair; it starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), _from_zero(nn.Linear(WIDTH, WIDTH))
        self.scale, self.shift = nn.Parameter(torch.ones(2, WIDTH)), nn.Parameter(torch.zeros(2, WIDTH))

    def forward(self, tokens: Tensor, shares: Tensor) -> Float[Tensor, "pairs matches width"]:
        hidden = self.first(self._normalised(tokens, shares, 0).relu())
        return tokens + self.second(self._normalised(hidden, shares, 1).relu())

    def _normalised(self, tokens: Tensor, shares: Tensor, which: int) -> Tensor:
        centred = tokens - (tokens * shares).sum(dim=1, keepdim=True)
        variance = (centred.square() * shares).sum(dim=1, keepdim=True)
        return centred * (variance + 1e-3).rsqrt() * self.scale[which] + self.shift[which]


def _from_zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _shares(weights: Float[Tensor, "pairs matches"]) -> Float[Tensor, "pairs matches 1"]:
    return (weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-3)).unsqueeze(-1)


def _contrasts(support: Float[Tensor, "queries candidates"], one: Shortlists) -> Float[Tensor, "queries candidates"]:
    """Contrasts as in `ranking.py`, of weighted inliers whose mean weight in a list is one."""
    inliers = one.inliers * one.present
    weighted = support * inliers.sum(dim=1, keepdim=True) / support.sum(dim=1, keepdim=True).clamp(min=1e-6)
    counts = 2 * (weighted + 3 / 8).sqrt()
    known = counts.detach().masked_fill(~one.present, torch.nan)
    level = known.nanquantile(0.25, dim=1, keepdim=True)
    spread = 1.4826 * (known - level).abs().nanquantile(0.5, dim=1, keepdim=True)
    return (counts - level) / spread.clamp(min=1)


@torch.inference_mode()
def scores_of(judge: Judge, one: Shortlists) -> Float[np.ndarray, "queries candidates"]:
    """Scores of all queries."""
    parts = torch.arange(len(one.present)).split(64)
    return torch.cat([judge(one.chosen(rows)) for rows in parts]).double().numpy()
