"""Importer of the checkpoints published with DHE-VPR.

Source: https://github.com/Lu-Feng/DHE-VPR (Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI
2024).
"""

import re
from collections.abc import Container, Sequence
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import cct
from vpr_dhe.models.importers.base import (
    Shapes,
    State,
    affine,
    check_shapes,
    imagenet_preprocessing,
    listed,
    read_state,
)
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Size

MAX_FILES = 2
_INPUT_SIZE = Size(384, 384)
_CELLS = 576
_FEED_FORWARD = 2048
_WIDTH = 384


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert an extractor and, if there is one, its head; see `import_dhe_vpr`."""
    return import_dhe_vpr(*paths)


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of an extractor or a head of DHE-VPR."""
    return _kind(shapes) is not None


def import_dhe_vpr(
    extractor_path: Path,
    head_path: Path | None = None,
    *,
    name: str = "dhe-vpr",
    training_data: str = "MSLS or Pitts30k, on ImageNet-1k weights; the checkpoint does not say which",
) -> ModelFile:
    """Convert the weights published with DHE-VPR (CCT-14 extractor and DHE head).

    Accepts the initial backbones (`CCT14_*.pth`), the initial DHE network and the finetuned files (`.torch`), in either
    order. A model without a head supports all verifiers but `dhe`.

    Raises:
        ModelError: if a file cannot be read or holds something else, or there is no extractor.
    """
    states = [(path, read_state(path)) for path in (extractor_path, head_path) if path is not None]
    extractor, head = _extractor_and_head(states)
    tensors = {**extractor, **head}
    blocks = cct.block_count(tensors)
    check_shapes(tensors, _expected_shapes(blocks, with_head=bool(head)), " and ".join(str(path) for path, _ in states))
    return ModelFile(
        name=name,
        architecture=Architecture(
            backbone="cct_14_7x2_384",
            aggregator="gem-unit-cells",
            blocks=blocks,
            head="dhe" if head else None,
            unit_norm=False,
        ),
        preprocessing=imagenet_preprocessing(_INPUT_SIZE, "bilinear", antialias=False),
        licence="MIT (Lu-Feng/DHE-VPR, the repository that publishes the weights)",
        training_data=training_data,
        tensors=tensors,
        published=True,
    )


def _extractor_and_head(states: list[tuple[Path, State]]) -> tuple[State, State]:
    """Identify extractor and head by the names of their tensors, and translate the names."""
    found: dict[str, State] = {}
    for path, state in states:
        kind = _kind(state)
        if kind is None:
            raise ModelError(
                f"{path} holds {listed(list(state))}, neither a DHE-VPR extractor (encoder.tokenizer..., pool.1.p) nor "
                "a DHE head (pe, encoder.layers..., linear.weight); give the files published with DHE-VPR"
            )
        if kind in found:
            raise ModelError(f"both files hold a DHE-VPR {kind}; give one extractor and one head")
        found[kind] = state
    if "extractor" not in found:
        raise ModelError(f"{states[0][0]} holds a DHE head only; give the finetuned CCT-14 extractor as well")
    head = {f"head.{key}": value for key, value in found.get("head", {}).items()}
    return _translate_extractor(found["extractor"]), head


def _kind(names: Container[str]) -> str | None:
    if "pe" in names and "linear.weight" in names:
        return "head"
    if any(f"{part}.{cct.STEM_WEIGHT}" in names for part in ("encoder", "backbone")):
        return "extractor"
    return None


def _translate_extractor(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        part = re.sub(r"^encoder\.", "backbone.", key)
        renamed[re.sub(r"^(pool|aggregation)\.1\.p$", "aggregator.p", part)] = value
    return cct.without_classifier(renamed)


def _expected_shapes(blocks: int, *, with_head: bool) -> Shapes:
    extractor = cct.cct_shapes(_WIDTH, blocks, _INPUT_SIZE)
    return extractor | {"aggregator.p": (1,)} | (_head_shapes() if with_head else {})


def _head_shapes() -> Shapes:
    shapes: Shapes = {"pe": (1, _CELLS, _CELLS), **affine("linear", 16, _CELLS**2)}
    for layer in (f"{encoder}.layers.{index}" for encoder in ("encoder", "encoder2") for index in range(3)):
        shapes |= {
            f"{layer}.self_attn.in_proj_weight": (3 * _CELLS, _CELLS),
            f"{layer}.self_attn.in_proj_bias": (3 * _CELLS,),
            **affine(f"{layer}.self_attn.out_proj", _CELLS, _CELLS),
            **affine(f"{layer}.linear1", _FEED_FORWARD, _CELLS),
            **affine(f"{layer}.linear2", _CELLS, _FEED_FORWARD),
            **affine(f"{layer}.norm1", _CELLS),
            **affine(f"{layer}.norm2", _CELLS),
        }
    return {f"head.{key}": shape for key, shape in shapes.items()}
