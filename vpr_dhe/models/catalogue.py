"""Which models there are, and which of them work without a download."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.model_file import ModelFile, load_model
from vpr_dhe.models.weights_file import SUFFIX

SIFT_VLAD = "sift-vlad"
CCT_OFFLINE = "cct-offline"
TIMM_PREFIX, TIMM_CNN_PREFIX = "timm:", "timm-cnn:"
BUNDLED = (SIFT_VLAD, CCT_OFFLINE)


@dataclass(frozen=True)
class CatalogueEntry:
    """One kind of model, as `vpr-dhe models` lists it."""

    name: str
    works_offline: bool
    description: str


CATALOGUE = (
    CatalogueEntry(SIFT_VLAD, True, "dense RootSIFT, VLAD, 384 dimensions, 24 x 24 map; a network for dhe-lite only"),
    CatalogueEntry(
        CCT_OFFLINE, True, "small transformer, trained from nothing on open photos and generated towns, 256 dimensions"
    ),
    CatalogueEntry(
        "FILE.safetensors", True, "a model file, such as the published DHE-VPR through `vpr-dhe import-weights`"
    ),
    CatalogueEntry("timm:NAME", False, "any vision transformer of timm by name; weights are downloaded once by timm"),
    CatalogueEntry(
        "timm-cnn:NAME", False, "any convolutional network of timm, cut at a sixteenth of the input; downloaded once"
    ),
    CatalogueEntry("FOLDER", True, "what `vpr-dhe export` wrote of any of them that is a network, run by ONNX Runtime"),
)


def open_model(name: str) -> ModelFile:
    """Open a bundled model by name, or a model file by path.

    Raises:
        ModelError: if there is no such model, or its file is damaged.
    """
    if name in BUNDLED:
        with resources.as_file(resources.files("vpr_dhe.models") / "weights" / f"{name}.safetensors") as path:
            return load_model(path)
    path = Path(name)
    if path.suffix == SUFFIX:
        return load_model(path)
    raise ModelError(
        f"unknown model {name!r}; expected one of {', '.join(BUNDLED)}, a .safetensors model file, timm:NAME, "
        "timm-cnn:NAME, or a folder that `vpr-dhe export` wrote"
    )


def is_export(name: str) -> bool:
    """Whether a name is that of a folder; `./NAME` is one that is called like a bundled model."""
    return name not in BUNDLED and Path(name).is_dir()
