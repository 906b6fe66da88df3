"""Files of fitted codec parameters."""

from pathlib import Path

import safetensors
import safetensors.numpy

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.codec_choice import CodecChoice
from vpr_dhe.index.codecs import LocalMapCodec, load_codec
from vpr_dhe.index.files import damage, read_checked, unique_name, write_sealed
from vpr_dhe.index.manifest import CodecInfo


def save_codec(folder: Path, choice: CodecChoice, images: int) -> CodecInfo:
    """Write the parameters of a codec, if it has any; `images` is the number that it was fitted on."""
    codec = choice.codec
    if not codec.parameters:
        return CodecInfo(codec.name, images, None, trials=choice.trials)
    name = f"{unique_name('codec')}.safetensors"
    written = write_sealed(folder, name, safetensors.numpy.save(codec.parameters))
    return CodecInfo(codec.name, images, written, trials=choice.trials)


def open_codec(folder: Path, info: CodecInfo, spec: ExtractorSpec) -> LocalMapCodec:
    """Read a codec.

    Raises:
        IndexFormatError: if this version does not know the codec.
        IndexDamagedError: if its parameters do not agree with their checksum, or have other shapes.
    """
    parameters = {}
    if info.parameters:
        try:
            parameters = safetensors.numpy.load(read_checked(folder, info.parameters))
        except safetensors.SafetensorError as error:
            raise damage(folder / info.parameters.name, f"cannot be parsed ({error})") from error
    return load_codec(info.name, spec.grid.rows * spec.grid.columns, spec.local_dimension, parameters)
