"""Visual place recognition: retrieve by global descriptor, verify by homography."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vpr_dhe import errors
from vpr_dhe.errors import VprDheError

if TYPE_CHECKING:
    from vpr_dhe.evaluation.calibrate import calibrate_index
    from vpr_dhe.evaluation.evaluate import evaluate, evaluate_pairs
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.index.indexing import index_images
    from vpr_dhe.index.map_adaptation import adapt_index
    from vpr_dhe.index.merged_indexes import merge_indexes
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.records import ImageRecord, Localization
    from vpr_dhe.sequences.frames import SequenceFrame
    from vpr_dhe.sequences.loops import find_loops
    from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
    from vpr_dhe.verification.alignment import align
    from vpr_dhe.verification.build import build_verifier
    from vpr_dhe.verification.estimators.resources import Resources
    from vpr_dhe.verification.verifier import Verifier

    __version__: str

__all__ = [
    "ImageRecord",
    "Localization",
    "Localizer",
    "PlaceIndex",
    "Resources",
    "SequenceFrame",
    "SequenceLocalizer",
    "Verifier",
    "VprDheError",
    "__version__",
    "adapt_index",
    "align",
    "build_verifier",
    "calibrate_index",
    "errors",
    "evaluate",
    "evaluate_pairs",
    "find_loops",
    "index_images",
    "load_extractor",
    "merge_indexes",
]

# Imported on first use, because importing torch takes seconds.
_HOMES = {
    "ImageRecord": "vpr_dhe.records",
    "Localization": "vpr_dhe.records",
    "Localizer": "vpr_dhe.localization.localizer",
    "PlaceIndex": "vpr_dhe.index.place_index",
    "Resources": "vpr_dhe.verification.estimators.resources",
    "SequenceFrame": "vpr_dhe.sequences.frames",
    "SequenceLocalizer": "vpr_dhe.sequences.sequence_localizer",
    "Verifier": "vpr_dhe.verification.verifier",
    "adapt_index": "vpr_dhe.index.map_adaptation",
    "align": "vpr_dhe.verification.alignment",
    "build_verifier": "vpr_dhe.verification.build",
    "calibrate_index": "vpr_dhe.evaluation.calibrate",
    "evaluate": "vpr_dhe.evaluation.evaluate",
    "evaluate_pairs": "vpr_dhe.evaluation.evaluate",
    "find_loops": "vpr_dhe.sequences.loops",
    "index_images": "vpr_dhe.index.indexing",
    "load_extractor": "vpr_dhe.features.extractor",
    "merge_indexes": "vpr_dhe.index.merged_indexes",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes a sixth of the time of `vpr-dhe --help`

        return version("vpr-dhe")
    if name not in _HOMES:
        raise AttributeError(f"module 'vpr_dhe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
