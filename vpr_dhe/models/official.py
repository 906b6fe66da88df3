"""Published checkpoints converted into model files: their names translated, their shapes checked, no network built.

Checkpoints are read with `torch.load(weights_only=True)`, which executes no code from the file.
"""

import contextlib
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.models.positional_embedding import resize_positional_embedding
from vpr_dhe.records import Grid, Preprocessing, Size

State: TypeAlias = dict[str, Tensor]
Shapes: TypeAlias = dict[str, tuple[int, ...]]

_STRIDE_PX = 16
_DHE_INPUT_SIZE = Size(384, 384)
_DHE_CELLS = 576
_DHE_FEED_FORWARD = 2048
_DHE_WIDTH = 384
# By dimension: depth and width of the feed-forward layers (Hassani et al. 2021), and the names by side of the input.
_CCT = {
    256: (7, 512, {224: "cct_7_7x2_224"}),
    384: (14, 1152, {224: "cct_14_7x2_224", 384: "cct_14_7x2_384"}),
}
_CORES = ("core", "_core")
_CCT_MARK = "tokenizer.conv_layers.0.0.weight"


def import_checkpoints(kind: str, paths: Sequence[Path]) -> ModelFile:
    """Convert the files of one kind of published model: `dhe-vpr` (extractor, and head if there is one) or `cct`.

    Raises:
        ModelError: if the number of files is not what the kind takes, or a file is not what it should be.
    """
    most = {"dhe-vpr": 2, "cct": 1}[kind]
    if len(paths) > most:
        raise ModelError(f"{len(paths)} files were given; kind {kind} takes {most} at most")
    return import_dhe_vpr(*paths) if kind == "dhe-vpr" else import_cct(paths[0])


def import_dhe_vpr(
    extractor_path: Path,
    head_path: Path | None = None,
    *,
    name: str = "dhe-vpr",
    training_data: str = "MSLS or Pitts30k, on ImageNet-1k weights; the checkpoint does not say which",
) -> ModelFile:
    """Convert the weights published with DHE-VPR (CCT-14 extractor and DHE head).

    Takes the initial backbones (`CCT14_*.pth`), the initial DHE network and the finetuned files (`.torch`) alike, in
    either order; without a head the model retrieves, but verifies with other methods only.

    Raises:
        ModelError: if a file cannot be read, or is not what it should be.

    Source: https://github.com/Lu-Feng/DHE-VPR (Lu et al., AAAI 2024).
    """
    states = [(path, _read_state(path)) for path in (extractor_path, head_path) if path is not None]
    extractor, head = _tell_apart(states)
    tensors = {**extractor, **head}
    blocks = _block_count(tensors)
    _check(tensors, _dhe_vpr_shapes(blocks, with_head=bool(head)), " and ".join(str(path) for path, _ in states))
    return ModelFile(
        name=name,
        architecture=Architecture(
            backbone="cct_14_7x2_384",
            aggregator="gem-unit-cells",
            blocks=blocks,
            head="dhe" if head else None,
            unit_norm=False,
        ),
        preprocessing=_imagenet_preprocessing(_DHE_INPUT_SIZE, "bilinear", antialias=False),
        licence="MIT (Lu-Feng/DHE-VPR, the repository that publishes the weights)",
        training_data=training_data,
        tensors=tensors,
    )


def import_cct(
    path: Path,
    *,
    input_size: Size | None = None,
    name: str | None = None,
    training_data: str = "ImageNet-1k, or what the checkpoint was finetuned on",
) -> ModelFile:
    """Convert a checkpoint of the Compact Transformers repository (CCT-7/7x2 or CCT-14/7x2) into a descriptor model.

    The variant and its input size follow from the shapes. The global descriptor is GeM of unit-norm cells with p = 3,
    from which DHE-VPR starts its training. With `input_size` the positional embedding is resized to it.

    Raises:
        ModelError: if the file cannot be read or holds something else, or `input_size` is no multiple of 16 pixels.

    Source: https://github.com/SHI-Labs/Compact-Transformers (Hassani et al. 2021).
    """
    state = {f"backbone.{key}": value for key, value in _without_classifier(_read_state(path)).items()}
    dimension, trained_size = _cct_facts(state, path)
    depth, feed_forward, names = _CCT[dimension]
    blocks = _block_count(state)
    _check(state, _cct_shapes(dimension, feed_forward, min(blocks, depth), _grid(trained_size)), str(path))
    size = input_size or trained_size
    key = "backbone.classifier.positional_emb"
    resized = resize_positional_embedding(state[key], _grid(trained_size), _grid(size))
    backbone = names.get(trained_size.width, next(reversed(names.values())))
    return ModelFile(
        name=name or backbone,
        architecture=Architecture(backbone, "gem-unit-cells", blocks=None if blocks == depth else blocks),
        preprocessing=_imagenet_preprocessing(size, "bicubic", antialias=True),
        licence="Apache-2.0 (SHI-Labs/Compact-Transformers, the repository that publishes the weights)",
        training_data=training_data,
        tensors={**state, key: resized.contiguous(), "aggregator.p": torch.full((1,), 3.0)},
    )


def _imagenet_preprocessing(
    size: Size, interpolation: Literal["bilinear", "bicubic"], *, antialias: bool
) -> Preprocessing:
    return Preprocessing(
        width=size.width,
        height=size.height,
        interpolation=interpolation,
        antialias=antialias,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _read_state(path: Path) -> State:
    """The state dictionary in a checkpoint, wherever it keeps it, in float32 and without DataParallel's prefix."""
    if not path.is_file():
        raise ModelError(f"checkpoint {path} does not exist; give the path of the file that the authors publish")
    try:
        with _numpy_numbers_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder="...")
        raise ModelError(f"{path} is not a readable PyTorch checkpoint ({reason}); download it again") from error
    for wrapper in ("model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and wrapper in content:
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise ModelError(f"{path} holds {_describe(content)}, not a state dictionary of tensors; give the weights file")
    # Copies, because tensors that share storage cannot be saved in a model file.
    return {key.removeprefix("module."): value.to(torch.float32, copy=True) for key, value in content.items()}


@contextlib.contextmanager
def _numpy_numbers_allowed() -> Iterator[None]:
    """Let plain NumPy arrays and numbers through: benchmark checkpoints keep their recalls in them."""
    functions: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    # NumPy 1 pickled them as numpy.core, NumPy 2 does as numpy._core.
    named = [(function, f"numpy.{core}.multiarray.{function.__name__}") for function in functions for core in _CORES]
    numbers = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    with torch.serialization.safe_globals([np.ndarray, np.dtype, *numbers, *named]):
        yield


def _all_tensors(content: Mapping) -> bool:
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary of {_some([str(key) for key in content])}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"


def _tell_apart(states: list[tuple[Path, State]]) -> tuple[State, State]:
    """Sort the files into extractor and head by their names of tensors, and translate those."""
    found: dict[str, State] = {}
    for path, state in states:
        kind = _kind(state)
        if kind is None:
            raise ModelError(
                f"{path} holds {_some(list(state))}, neither a DHE-VPR extractor (encoder.tokenizer..., pool.1.p) nor "
                "a DHE head (pe, encoder.layers..., linear.weight); give the files published with DHE-VPR"
            )
        if kind in found:
            raise ModelError(f"both files hold a DHE-VPR {kind}; give one extractor and one head")
        found[kind] = state
    if "extractor" not in found:
        raise ModelError(f"{states[0][0]} holds a DHE head only; give the finetuned CCT-14 extractor as well")
    head = {f"head.{key}": value for key, value in found.get("head", {}).items()}
    return _translate_extractor(found["extractor"]), head


def _kind(state: State) -> str | None:
    if "pe" in state and "linear.weight" in state:
        return "head"
    if any(f"{part}.{_CCT_MARK}" in state for part in ("encoder", "backbone")):
        return "extractor"
    return None


def _translate_extractor(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        part = re.sub(r"^encoder\.", "backbone.", key)
        renamed[re.sub(r"^(pool|aggregation)\.1\.p$", "aggregator.p", part)] = value
    return _without_classifier(renamed)


def _without_classifier(state: State) -> State:
    """Drop the sequence pooling and the class scores, which dense features do not pass through."""
    return {key: value for key, value in state.items() if not re.search(r"classifier\.(attention_pool|fc)\.", key)}


def _cct_facts(state: State, path: Path) -> tuple[int, Size]:
    """Dimension and input size, from the shape of the positional embedding."""
    shape = tuple(state.get("backbone.classifier.positional_emb", torch.empty(0)).shape)
    side = math.isqrt(shape[1]) if len(shape) == 3 else 0
    if len(shape) != 3 or shape[2] not in _CCT or side * side != shape[1] or f"backbone.{_CCT_MARK}" not in state:
        raise ModelError(
            f"{path} is not a CCT-7/7x2 or CCT-14/7x2 checkpoint: expected classifier.positional_emb of shape "
            f"(1, side * side, 256 or 384), found {shape or 'none'}; give a 7x2 checkpoint of Compact-Transformers"
        )
    return shape[2], Size(side * _STRIDE_PX, side * _STRIDE_PX)


def _block_count(state: State) -> int:
    numbers = [re.search(r"^backbone\.classifier\.blocks\.(\d+)\.", key) for key in state]
    return max((int(number[1]) + 1 for number in numbers if number), default=1)


def _grid(size: Size) -> Grid:
    if any(side < _STRIDE_PX or side % _STRIDE_PX for side in size):
        raise ModelError(f"CCT needs input sides that are multiples of {_STRIDE_PX} pixels, not {tuple(size)}")
    return Grid(size.height // _STRIDE_PX, size.width // _STRIDE_PX)


def _check(state: State, expected: Shapes, source: str) -> None:
    wrong = [
        f"{key} of shape {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    faults = [("lacks", missing), ("has unexpected", unexpected), ("has", wrong)]
    said = "; ".join(f"{verb} {_some(keys)}" for verb, keys in faults if keys)
    if said:
        raise ModelError(f"{source} {said}; check that the file is complete and of the kind that was asked for")


def _some(keys: list[str]) -> str:
    """Up to three of them."""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + rest


def _dhe_vpr_shapes(blocks: int, *, with_head: bool) -> Shapes:
    depth, feed_forward, _ = _CCT[_DHE_WIDTH]
    extractor = _cct_shapes(_DHE_WIDTH, feed_forward, min(blocks, depth), _grid(_DHE_INPUT_SIZE))
    return extractor | {"aggregator.p": (1,)} | (_head_shapes() if with_head else {})


def _cct_shapes(dimension: int, feed_forward: int, blocks: int, grid: Grid) -> Shapes:
    shapes: Shapes = {
        "tokenizer.conv_layers.0.0.weight": (64, 3, 7, 7),
        "tokenizer.conv_layers.1.0.weight": (dimension, 64, 7, 7),
        "classifier.positional_emb": (1, grid.rows * grid.columns, dimension),
        **_affine("classifier.norm", dimension),
    }
    for index in range(blocks):
        block = f"classifier.blocks.{index}"
        shapes |= {
            **_affine(f"{block}.pre_norm", dimension),
            f"{block}.self_attn.qkv.weight": (3 * dimension, dimension),
            **_affine(f"{block}.self_attn.proj", dimension, dimension),
            **_affine(f"{block}.linear1", feed_forward, dimension),
            **_affine(f"{block}.norm1", dimension),
            **_affine(f"{block}.linear2", dimension, feed_forward),
        }
    return {f"backbone.{key}": shape for key, shape in shapes.items()}


def _head_shapes() -> Shapes:
    shapes: Shapes = {"pe": (1, _DHE_CELLS, _DHE_CELLS), **_affine("linear", 16, _DHE_CELLS**2)}
    for layer in (f"{encoder}.layers.{index}" for encoder in ("encoder", "encoder2") for index in range(3)):
        shapes |= {
            f"{layer}.self_attn.in_proj_weight": (3 * _DHE_CELLS, _DHE_CELLS),
            f"{layer}.self_attn.in_proj_bias": (3 * _DHE_CELLS,),
            **_affine(f"{layer}.self_attn.out_proj", _DHE_CELLS, _DHE_CELLS),
            **_affine(f"{layer}.linear1", _DHE_FEED_FORWARD, _DHE_CELLS),
            **_affine(f"{layer}.linear2", _DHE_CELLS, _DHE_FEED_FORWARD),
            **_affine(f"{layer}.norm1", _DHE_CELLS),
            **_affine(f"{layer}.norm2", _DHE_CELLS),
        }
    return {f"head.{key}": shape for key, shape in shapes.items()}


def _affine(name: str, rows: int, *columns: int) -> Shapes:
    """Weight and bias of a norm or, with columns, of a linear layer."""
    return {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}
