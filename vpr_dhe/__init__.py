"""Visual place recognition: retrieve by global descriptor, verify by homography."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpr_dhe.errors import VprDheError
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.verification.verifier import Verifier

__version__ = version("vpr-dhe")
__all__ = ["Localizer", "PlaceIndex", "Verifier", "VprDheError", "__version__", "load_extractor"]

# Imported on first use, because importing torch takes seconds.
_HOMES = {
    "Localizer": "vpr_dhe.localization.localizer",
    "PlaceIndex": "vpr_dhe.index.place_index",
    "Verifier": "vpr_dhe.verification.verifier",
    "VprDheError": "vpr_dhe.errors",
    "load_extractor": "vpr_dhe.features.extractor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vpr_dhe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
