"""What was fitted for a codec, kept beside the segments that were stored with it."""

from pathlib import Path

import safetensors
import safetensors.numpy

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.codecs import CodecChoice, LocalMapCodec, load_codec
from vpr_dhe.index.files import damage, read_checked, unique_name, write_sealed
from vpr_dhe.index.manifest import CodecInfo


def save_codec(folder: Path, choice: CodecChoice, images: int) -> CodecInfo:
    """Write the parameters of a codec that was fitted on so many images, if it has any."""
    codec = choice.codec
    if not codec.parameters:
        return CodecInfo(codec.name, images, None, choice.agreement)
    name = f"{unique_name('codec')}.safetensors"
    written = write_sealed(folder, name, safetensors.numpy.save(codec.parameters))
    return CodecInfo(codec.name, images, written, choice.agreement)


def open_codec(folder: Path, fact: CodecInfo, spec: ExtractorSpec) -> LocalMapCodec:
    """Read a codec back.

    Raises:
        IndexFormatError: if this version knows no such codec.
        IndexDamagedError: if its parameters do not agree with their checksum, or do not fit.
    """
    parameters = {}
    if fact.parameters:
        try:
            parameters = safetensors.numpy.load(read_checked(folder, fact.parameters))
        except safetensors.SafetensorError as error:
            raise damage(folder / fact.parameters.name, f"cannot be parsed ({error})") from error
    return load_codec(fact.name, spec.grid.rows * spec.grid.columns, spec.local_dimension, parameters)
