"""Choice of the settings of an index, and checks that they fit its model and what it stores already."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.codecs import CODECS
from vpr_dhe.index.grey_levels import parse_bit_depth
from vpr_dhe.index.manifest import Manifest, Settings
from vpr_dhe.index.vectors import BINARY_CODES, INDEX_TYPES
from vpr_dhe.runtime.choices import AUTO, Adapt, RankBy, require_choice


@dataclass(frozen=True)
class SettingsChoice:
    """Settings to change; None keeps the value as it is."""

    codec: str | None = None
    index_type: str | None = None
    rank_by: RankBy | None = None
    adapt: Adapt | None = None

    def over(self, settings: Settings) -> Settings:
        """Settings with the chosen values in place of theirs."""
        return replace(settings, **{name: value for name, value in asdict(self).items() if value is not None})


def require_usable(settings: Settings, spec: ExtractorSpec) -> None:
    """Check that codec and index type are known, and that the model makes what the index type searches.

    Raises:
        BadInputError: otherwise.
    """
    require_known(settings)
    if settings.index_type == BINARY_CODES and not spec.code_bits:
        raise BadInputError(
            f"index type {BINARY_CODES} searches binary codes that a model has learned, and {spec.model!r} makes none; "
            "use a model that `vpr-dhe models` lists with codes, or rabitq, which makes one bit of each number of a "
            "descriptor"
        )


def require_known(settings: Settings) -> None:
    """Check that all settings are known names.

    Raises:
        BadInputError: otherwise.
    """
    require_choice(settings.rank_by, RankBy, "rank_by")
    require_choice(settings.adapt, Adapt, "adapt")
    for what, name, known in (("codec", settings.codec, CODECS), ("index type", settings.index_type, INDEX_TYPES)):
        if name != AUTO and name not in known:
            raise BadInputError(f"{what} {name!r} is unknown; expected {AUTO}, {', '.join(known)}")


def require_stored_codec(folder: Path, manifest: Manifest, codec: str | None) -> None:
    """Check that the local maps of an index are not stored by another codec.

    Raises:
        BadInputError: if they are.
    """
    stored = manifest.codec
    if codec is not None and stored and codec not in (stored.name, manifest.settings.codec):
        raise BadInputError(
            f"{folder} stores local maps as {stored.name}, and {codec!r} was asked for; leave that out, or use "
            f"`vpr-dhe compact {folder} --codec {codec}`"
        )


def require_bit_depth(folder: Path, manifest: Manifest, bit_depth: str) -> None:
    """Check that the 16-bit images of an index are read by these grey levels.

    Raises:
        BadInputError: if they are read by others, or `bit_depth` is not valid.
    """
    asked = parse_bit_depth(bit_depth)
    if asked is not None and asked != manifest.levels:
        raise BadInputError(
            f"{folder} reads 16-bit images from {manifest.levels.low} to {manifest.levels.high}, and "
            f"--bit-depth is {bit_depth}; index the images into a new folder, or leave it out"
        )
