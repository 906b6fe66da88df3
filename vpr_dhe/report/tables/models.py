"""Tables of models, and facts about one."""

from pathlib import Path
from typing import TYPE_CHECKING

from vpr_dhe.models.fetching import cached
from vpr_dhe.models.names import TIMM_CNN_PREFIX, TIMM_PREFIX
from vpr_dhe.models.published import PUBLISHED, PublishedModel
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
    """Table of published models."""
    header = ["model", "dimensions", "licence", "download", "source", "on disk"]
    rows = [
        [
            *(model.name, str(model.dimension), _licence(model), _size(model)),
            *(f"{model.repository}, {model.place}", "yes" if cached(model.name) else "no"),
        ]
        for model in PUBLISHED.values()
    ]
    return text_table(header, rows)


def model_lines(name: str) -> list[str]:
    """Facts about one model: those in its file, or those of the catalogue if it is not on this machine."""
    from vpr_dhe.models.catalogue import is_export, open_model
    from vpr_dhe.models.exported_model import load_exported

    published = PUBLISHED.get(name)
    if published is not None and cached(name) is None:
        return _published_lines(published)
    if name.startswith((TIMM_PREFIX, TIMM_CNN_PREFIX)):
        return [f"{name}: a network of timm, which downloads it when it is first used and knows its licence"]
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
    return [
        f"{model.name}: not on disk; {_size(model)} to fetch from {model.url}",
        f"licence: {model.licence}" + ("" if model.restriction is None else f"; {model.restriction}"),
        f"dimensions: {model.dimension}",
        *([f"recall@1 in percent, as published: {recall}"] if recall else []),
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
