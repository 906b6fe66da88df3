"""Catalogue of models, and loading of models by name."""

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from vpr_dhe.models.names import BUNDLED, CCT_LITE, CCT_OFFLINE, LITE_VLAD, SIFT_VLAD, require_model
from vpr_dhe.models.published import PUBLISHED

if TYPE_CHECKING:
    from vpr_dhe.models.model_file import ModelFile


@dataclass(frozen=True)
class CatalogueEntry:
    """One line of `vpr-dhe models`: a model or a family of models."""

    name: str
    works_offline: bool
    description: str


CATALOGUE = (
    CatalogueEntry(
        LITE_VLAD,
        True,
        "the default: first stages of an EfficientNet-Lite0 from ImageNet, VLAD, 768 dimensions, 20 x 20 map",
    ),
    CatalogueEntry(SIFT_VLAD, True, "dense RootSIFT, VLAD, 384 dimensions, 24 x 24 map; a network for dhe-lite only"),
    CatalogueEntry(
        CCT_OFFLINE, True, "small transformer, trained from scratch on open photos and generated towns, 256 dimensions"
    ),
    CatalogueEntry(
        CCT_LITE, True, "experimental: the same transformer, taught by lite-vlad, 768 dimensions, 20 x 20 map"
    ),
    CatalogueEntry(
        "FILE.safetensors", True, "a model file, such as the published DHE-VPR through `vpr-dhe import-weights`"
    ),
    CatalogueEntry("timm:NAME", False, "any vision transformer of timm by name; weights are downloaded once by timm"),
    CatalogueEntry(
        "timm-cnn:NAME", False, "any convolutional network of timm, cut at a sixteenth of the input; downloaded once"
    ),
    CatalogueEntry("FOLDER", True, "a network exported by `vpr-dhe export`, run by ONNX Runtime"),
)

_PARTS_OF = {CCT_LITE: LITE_VLAD}
"""Bundled students and their teachers; the file of a student contains only its backbone."""


def open_model(name: str) -> "ModelFile":
    """Load a bundled or published model by name, or a model file by path; a published model is downloaded once.

    Raises:
        ModelError: if there is no such model, or its file is damaged.
        DownloadError: if a published model cannot be downloaded.
    """
    from vpr_dhe.models.hub import fetch  # here, as torch takes seconds to import
    from vpr_dhe.models.model_file import load_model

    if name in BUNDLED:
        with resources.as_file(resources.files("vpr_dhe.models") / "weights" / f"{name}.safetensors") as path:
            model = load_model(path)
        if name not in _PARTS_OF:
            return model
        teacher = open_model(_PARTS_OF[name]).without_backbone().without_head()
        return replace(model, tensors={**model.tensors, **teacher.tensors})
    if name in PUBLISHED:
        return load_model(fetch(name))
    require_model(name)
    return load_model(name)


def is_export(name: str) -> bool:
    """Whether a name is the path of a folder; write `./NAME` for a folder named like a bundled or published model."""
    return name not in BUNDLED and name not in PUBLISHED and Path(name).is_dir()
