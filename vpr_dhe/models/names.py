"""Names of models, importable without torch."""

from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.published import PUBLISHED, PUBLISHED_NETWORKS
from vpr_dhe.runtime.text import did_you_mean

SIFT_VLAD = "sift-vlad"
CCT_OFFLINE = "cct-offline"
LITE_VLAD = "lite-vlad"
CCT_LITE = "cct-lite"
DEFAULT_MODEL = LITE_VLAD
BUNDLED = (LITE_VLAD, SIFT_VLAD, CCT_OFFLINE, CCT_LITE)
"""Models whose files are in the package."""

TIMM_PREFIX, TIMM_CNN_PREFIX = "timm:", "timm-cnn:"
JOINT_VLAD = "joint-vlad"
"""Aggregator that pools tokens and the descriptors of a local head."""
SUFFIX = ".safetensors"
"""Suffix of model files."""


def require_model(name: str) -> None:
    """Check the name of a model without loading it.

    Raises:
        ModelError: if there is no such model, file or folder.
    """
    if name in BUNDLED or name in PUBLISHED or name.startswith((TIMM_PREFIX, TIMM_CNN_PREFIX)) or Path(name).is_dir():
        return
    if name in PUBLISHED_NETWORKS:
        raise ModelError(
            f"{name} estimates homographies and extracts no features: {PUBLISHED_NETWORKS[name].instructions}"
        )
    if Path(name).suffix != SUFFIX:
        raise ModelError(
            f"unknown model {name!r}{_suggestion(name)}; expected one of "
            f"{', '.join(BUNDLED)}, a published model that `vpr-dhe models` lists, a {SUFFIX} model file, timm:NAME, "
            "timm-cnn:NAME, or a folder that `vpr-dhe export` wrote"
        )
    if not Path(name).is_file():
        raise ModelError(f"model file {name} does not exist; give the path of a {SUFFIX} file")


def _suggestion(name: str) -> str:
    """Hint with the known names that start with `name`, else the closest name, or an empty string."""
    continued = [known for known in PUBLISHED if known.startswith(f"{name}-")]
    return f" (there is {', '.join(continued)})" if continued else did_you_mean(name, [*BUNDLED, *PUBLISHED])
