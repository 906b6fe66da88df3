"""Visual place recognition: retrieve by global descriptor, verify by homography."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vpr_dhe import errors
from vpr_dhe.errors import VprDheError

if TYPE_CHECKING:
    from vpr_dhe.evaluation.evaluate import evaluate
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.index.indexing import index_images
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.records import ImageRecord, Localization
    from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
    from vpr_dhe.verification.alignment import align
    from vpr_dhe.verification.build import build_verifier
    from vpr_dhe.verification.estimators.resources import Resources
    from vpr_dhe.verification.verifier import Verifier

__version__ = version("vpr-dhe")
__all__ = [
    "ImageRecord",
    "Localization",
    "Localizer",
    "PlaceIndex",
    "Resources",
    "SequenceLocalizer",
    "Verifier",
    "VprDheError",
    "__version__",
    "align",
    "build_verifier",
    "errors",
    "evaluate",
    "index_images",
    "load_extractor",
]

# Imported on first use, because importing torch takes seconds.
_HOMES = {
    "ImageRecord": "vpr_dhe.records",
    "Localization": "vpr_dhe.records",
    "Localizer": "vpr_dhe.localization.localizer",
    "PlaceIndex": "vpr_dhe.index.place_index",
    "Resources": "vpr_dhe.verification.estimators.resources",
    "SequenceLocalizer": "vpr_dhe.sequences.sequence_localizer",
    "Verifier": "vpr_dhe.verification.verifier",
    "align": "vpr_dhe.verification.alignment",
    "build_verifier": "vpr_dhe.verification.build",
    "evaluate": "vpr_dhe.evaluation.evaluate",
    "index_images": "vpr_dhe.index.indexing",
    "load_extractor": "vpr_dhe.features.extractor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vpr_dhe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
