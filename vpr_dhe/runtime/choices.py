"""Names of choices that the command line and the library share."""

from enum import StrEnum
from typing import Final, Literal, TypeAlias, get_args

from vpr_dhe.errors import BadInputError

AUTO: Final = "auto"
"""Automatic choice."""

Runtime: TypeAlias = Literal["auto", "torch", "onnx"]
"""Runtime of networks; `auto` is onnx on a CPU where the network can be converted, otherwise torch."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Device of networks; `auto` is CUDA where there is a device."""

RankBy: TypeAlias = Literal["evidence", "inliers"]
"""Order of verified candidates: by inliers and similarity together, or by inliers alone."""

RankByChoice: TypeAlias = Literal["auto", "evidence", "inliers"]
"""Order of verified candidates, or `auto` for the default of the index."""

Adapt: TypeAlias = Literal["auto", "off"]
"""Adaptation of an index to its map: `auto` keeps steps that improve held-out recall on the map."""

# Precisions of matrix products; the rest is computed in fp32.
FP32: Final = "fp32"
"""Default precision: exact."""

ExtractorPrecision: TypeAlias = Literal["fp32", "bf16"]
Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
"""Precision of features and of the DHE head; with `int8`, features are in fp32."""
TrainingPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]


MAX_PIXELS: Final = 200_000_000
"""Largest number of pixels that are decoded by default: headers may claim any size, and phones have up to so many."""

SYNTHETIC_TOWN: Final = "synthetic-town"
"""Name of generated towns, in place of a folder of training data."""

# Names of registries that import torch or FAISS, in their order.
LAYOUT_NAMES = (AUTO, "vpr", "msls", "folders", "kapture", "colmap")
PAIR_LAYOUT_NAMES = (AUTO, "pairs", "hpatches", "aligned", "warps")
CODEC_NAMES = (AUTO, "float16", "int8", "pca128-int8", "pca64-int8", "binary")
INDEX_TYPE_NAMES = (AUTO, "flat", "hnsw", "ivf-flat", "ivf-sq8", "rabitq", "binary-codes")
DENOMINATORS = ("all", "with-positive")

ExportPart: TypeAlias = Literal["all", "extractor", "head"]
"""Networks of a model to export; `all` includes the head if there is one."""


class Mining(StrEnum):
    """Images searched for negatives of triplets: none, a sample of the database, or all of it."""

    random = "random"
    partial = "partial"
    full = "full"


class RegistrationNetworkName(StrEnum):
    """Registration networks."""

    iterative = "iterative"
    direct = "direct"
    flow = "flow"


class RegistrationLayout(StrEnum):
    """Architectures of the iterative registration network."""

    ihn = "ihn"
    alto = "alto"
    sshnet = "sshnet"
    earlier = "earlier"


class TransferName(StrEnum):
    """Networks that translate one modality into the other; published: swin-shuffle."""

    swin_shuffle = "swin-shuffle"
    swin = "swin"
    convolutional = "convolutional"


def require_choice(value: str, choices: object, name: str) -> None:
    """Check that a value is one of the names of a `Literal`.

    Raises:
        BadInputError: if it is not.
    """
    if value not in get_args(choices):
        raise BadInputError(f"{name} is {value!r}; expected {', '.join(get_args(choices))}")


def features_precision(precision: Precision) -> ExtractorPrecision:
    """Precision of the extractor for a precision option."""
    return FP32 if precision == "int8" else precision


def default_rank_by(*, published: bool) -> RankBy:
    """Default order of verified candidates: by inliers for published models, else by all evidence."""
    return "inliers" if published else "evidence"


def default_adapt(*, published: bool) -> Adapt:
    """Default adaptation: off for published models, so that they give the published results."""
    return "off" if published else AUTO


def resolve_rank_by(choice: RankByChoice, default: RankBy) -> RankBy:
    """Replace `auto` by a default.

    Raises:
        BadInputError: if the choice is unknown.
    """
    require_choice(choice, RankByChoice, "rank_by")
    return default if choice == AUTO else choice
