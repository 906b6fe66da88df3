"""Corner error of a DHE head that is trained on 6 x 6 cells, grown to 12 x 12, and grown to 24 x 24.

    OMP_NUM_THREADS=1 python benchmarks/dhe_growth.py DATA/train_open/facades DATA/train_open/hdri_views --head-out FILE

The transformers see as many tokens of as many numbers as the grid has cells, so a step with few cells takes a hundredth
of the time. A grown head treats each of four cells as the one that they come from, so it starts with what the small one
has learned, in weights of low rank, and with a little noise, by which its numbers become different in training (Chen et
al., "Net2Net", ICLR 2016). Photos, warps and errors are those of `dhe_budget.py`. Writes
`benchmarks/results/dhe_growth.md` and `dhe_growth.json`, and on request the weights of the published size.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from dhe_budget import SIDES, VALIDATION_PAIRS, Measured, drawer, split_photos, train
from jaxtyping import Int64
from measuring import RESULTS, table, write_result
from safetensors.torch import save_file
from torch import Tensor

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Grid
from vpr_dhe.training.dhe.stage import new_head
from vpr_dhe.verification.estimators.dhe import DheHead

_COPIES = 4
# Rows of the correlation have unit norm, so four times as many numbers are half as large.
_SHRUNK = 0.5
_NOISE = 0.2
_FIRST = "encoder.layers.0.self_attn."
# Axes of the weights of a layer: one number per cell, per number of an attention head, or of another kind.
_AXES = {
    "self_attn.in_proj_weight": ("heads", "cells"),
    "self_attn.in_proj_bias": ("heads",),
    "self_attn.out_proj.weight": ("cells", "heads"),
    "self_attn.out_proj.bias": ("cells",),
    "linear1.weight": ("", "cells"),
    "linear1.bias": ("",),
    "linear2.weight": ("cells", ""),
    "linear2.bias": ("cells",),
    **{f"norm{number}.{kind}": ("cells",) for number in (1, 2) for kind in ("weight", "bias")},
}


def grown(head: DheHead, noise: float = _NOISE) -> DheHead:
    """Head with twice as many rows and columns that predicts the same from maps with each cell repeated 2 x 2.

    Predictions are the same up to `noise` and to the epsilon of the first normalisation, whose input is half as large.

    Args:
        head: head of a square grid.
        noise: standard deviation of the noise on the projections of attention, relative to that of their weights.
            Without it, the numbers that are repeated in an attention head would get the same gradients for ever.
    """
    generator = torch.Generator().manual_seed(0)
    large = DheHead(Grid(2 * head.grid.rows, 2 * head.grid.columns))
    parent, cells, state = parents(head.grid), head.grid.rows * head.grid.columns, head.state_dict()
    last = state["linear.weight"].view(-1, cells, cells)[:, parent][:, :, parent] / _COPIES**2
    special = {
        "pe": _SHRUNK * state["pe"][:, parent][:, :, parent],
        "linear.weight": last.flatten(1),
        "linear.bias": state["linear.bias"],
    }
    layers = {name: _grown(name, value, parent) for name, value in state.items() if name not in special}
    # The first attention sees the correlation, not what a norm made of it.
    layers[f"{_FIRST}in_proj_weight"] /= _SHRUNK
    for name in ("weight", "bias"):
        layers[f"{_FIRST}out_proj.{name}"] *= _SHRUNK
    for name, value in layers.items():
        if name.endswith("in_proj_weight"):
            layers[name] = value + noise * value.std() * torch.randn(value.shape, generator=generator)
    large.load_state_dict(layers | special)
    return large


def parents(grid: Grid) -> Int64[Tensor, " cells"]:
    """Cell of a square grid that each cell of the grown one, row-major or column-major, comes from."""
    cells = torch.arange(grid.rows * grid.columns).view(grid)
    return cells.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1).flatten()


def _grown(name: str, value: Tensor, parent: Int64[Tensor, " cells"]) -> Tensor:
    """Grow a weight or a bias of a layer; sums over an axis of inputs stay as large as they were."""
    _, _, _, parameter = name.split(".", 3)
    for axis, kind in enumerate(_AXES[parameter]):
        if kind == "cells":
            value = value.index_select(axis, parent)
        elif kind == "heads":
            value = _of_heads(value, axis, projections=axis == 0)
        if kind and axis == 1:
            value = value / _COPIES
    return value


def _of_heads(value: Tensor, axis: int, *, projections: bool) -> Tensor:
    """Repeat each number of an attention head; products of queries and keys stay as large as they were.

    Four times as many summands are divided by a root that is twice as large.
    """
    if not projections:
        return value.repeat_interleave(_COPIES, dim=axis)
    scales = (0.5**0.5, 0.5**0.5, 1.0)  # of queries, keys and values
    repeated = (part.repeat_interleave(_COPIES, dim=axis) for part in value.chunk(3, dim=axis))
    return torch.cat([scale * part for scale, part in zip(scales, repeated, strict=True)], dim=axis)


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", help="folders")
    parser.add_argument("--minutes", type=float, nargs=len(SIDES), default=(6.0, 2.0, 0.0), help="of each size [6 2 0]")
    parser.add_argument("--model", default=LITE_VLAD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--head-out", type=Path, help="file for the weights")
    options = parser.parse_args()
    extractor, (seen, unseen) = load_extractor(options.model), split_photos(options.photos)
    head, rows = new_head(options.seed, Grid(SIDES[0], SIDES[0])), list[list[str]]()
    sizes = list[tuple[Measured, Measured]]()
    for side, minutes in zip(SIDES, options.minutes, strict=True):
        head = head if head.grid.rows == side else grown(head)
        validation = drawer(extractor, unseen, side, options.seed + 1)(VALIDATION_PAIRS)
        training = train(head, minutes, drawer(extractor, seen, side, options.seed), validation, options.seed)
        before = after = next(training)
        if minutes:
            *_, after = training
        sizes.append((before, after))
        figures = (f"{value:.1f}" for value in (after.minutes, before.median_px, after.median_px))
        rows.append([f"{side} x {side}", str(after.step), *figures])
        print(rows[-1], flush=True)
    text = table(("cells", "steps", "minutes", "before, px", "after, px"), rows)
    print(text)
    (RESULTS / "dhe_growth.md").write_text(f"{text}\n")
    facts = {"model": options.model, "photos": len(seen), "unseen": len(unseen)}
    documents = [[asdict(one) for one in pair] for pair in sizes]
    write_result(RESULTS / "dhe_growth.json", "dhe_growth", facts | {"sizes": documents})
    if options.head_out:
        save_file(head.state_dict(), options.head_out)


if __name__ == "__main__":
    main()
