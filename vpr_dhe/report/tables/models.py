"""Tables of models, and facts about one."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from vpr_dhe.models.hub import cached
from vpr_dhe.models.names import TIMM_CNN_PREFIX, TIMM_PREFIX
from vpr_dhe.models.published import PUBLISHED, PUBLISHED_NETWORKS, PublishedModel, PublishedNetwork
from vpr_dhe.report.tables.text import text_table

if TYPE_CHECKING:
    from vpr_dhe.models.exported_model import ExportInfo
    from vpr_dhe.models.model_file import ModelFile, Origin
    from vpr_dhe.records import Preprocessing


def table_of_kinds() -> str:
    """Table of bundled models and kinds of models."""
    from vpr_dhe.models.catalogue import CATALOGUE

    rows = [[entry.name, "yes" if entry.works_offline else "no", entry.description] for entry in CATALOGUE]
    return text_table(["model", "offline", "description"], rows)


def published_table() -> str:
    """Table of published models; a name that ends in -N stands for one model for each number of dimensions."""
    header = ["model", "dimensions", "licence", "download", "source", "on disk"]
    return text_table(header, [_row(name, list(models)) for name, models in groupby(PUBLISHED.values(), _line_of)])


def networks_table() -> str:
    """Table of published networks that estimate homographies."""
    header = ["network", "method", "licence", "source"]
    rows = [[one.name, one.method, one.licence, one.repository] for one in PUBLISHED_NETWORKS.values()]
    return text_table(header, rows)


def network_lines(network: PublishedNetwork) -> list[str]:
    """Facts about a published network, and how to get it."""
    return [
        f"{network.name}: network of the method {network.method}, published by {network.repository}",
        f"licence: {network.licence}",
        f"to get it: {network.instructions}",
    ]


def _line_of(model: PublishedModel) -> str:
    """Name of the table row of a model."""
    return f"{model.name.removesuffix(str(model.dimension))}N" if model.in_series else model.name


def _row(name: str, models: Sequence[PublishedModel]) -> list[str]:
    first, last = models[0], models[-1]
    size = _size(first) if _size(first) == _size(last) else f"about {first.megabytes} to {last.megabytes} MB"
    stored = [str(model.dimension) for model in models if cached(model.name)]
    on_disk = "no" if not stored else "yes" if len(models) == 1 else ", ".join(stored)
    dimensions = ", ".join(str(model.dimension) for model in models)
    if first.code_bits:
        dimensions += f" and codes of {first.code_bits} bits"
    return [name, dimensions, _licence(first), size, f"{first.repository}, {first.place}", on_disk]


def model_lines(name: str) -> list[str]:
    """Facts about one model from its file, or from the catalogue if it is not on this machine."""
    from vpr_dhe.models.catalogue import is_export, open_model
    from vpr_dhe.models.exported_model import load_exported

    published = PUBLISHED.get(name)
    if published is not None and cached(name) is None:
        return _published_lines(published)
    if name.startswith((TIMM_PREFIX, TIMM_CNN_PREFIX)):
        return [f"{name}: a network of timm, which downloads it on first use and states its licence"]
    if is_export(name):
        return _facts(load_exported(Path(name)).info)
    model = open_model(name)
    parameters = sum(tensor.numel() for tensor in model.tensors.values())
    return [
        *_facts(model),
        *([] if model.origin is None else _origin_lines(model.origin)),
        f"parameters: {parameters:,}",
        f"fingerprint: {model.extractor_fingerprint}",
    ]


def _published_lines(model: PublishedModel) -> list[str]:
    recall = ", ".join(f"{data} {value}" for data, value in model.recall.items())
    by_codes = " by --index-type binary-codes" if model.code_bits else ""
    return [
        f"{model.name}: not on disk; {_size(model)} to fetch from {model.url}",
        f"licence: {model.licence}" + ("" if model.restriction is None else f"; {model.restriction}"),
        f"dimensions: {model.dimension}",
        *([f"binary codes: {model.code_bits} bits"] if model.code_bits else []),
        *([f"recall@1 in percent, as published{by_codes}: {recall}"] if recall else []),
    ]


def _facts(model: "ModelFile | ExportInfo") -> list[str]:
    architecture = model.architecture
    parts = {
        "backbone": architecture.backbone,
        "aggregator": architecture.aggregator,
        "local head": architecture.local_head,
        "head": architecture.head,
    }
    return [
        model.name,
        *(f"{part}: {value}" for part, value in parts.items() if value is not None),
        f"input: {_input(model.preprocessing)}",
        f"licence: {model.licence}",
        f"training data: {model.training_data}",
    ]


def _origin_lines(origin: "Origin") -> list[str]:
    files = [f"converted from: {name}, SHA-256 {digest}" for name, digest in origin.files.items()]
    return [*files, *([] if origin.url is None else [f"published at: {origin.url}"])]


def _input(preprocessing: "Preprocessing") -> str:
    if preprocessing.resize_mode == "squeeze":
        return f"{preprocessing.width} x {preprocessing.height} pixels"
    return f"the size of each image, with a short side of at most {min(preprocessing.size)} pixels"


def _licence(model: PublishedModel) -> str:
    return model.licence if model.restriction is None else f"{model.licence} (restricted)"


def _size(model: PublishedModel) -> str:
    return "size unknown" if model.megabytes is None else f"about {model.megabytes} MB"
