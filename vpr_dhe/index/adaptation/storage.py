"""Files of an adaptation: the transform, and one pair of numbers per image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32, Int64

from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.files import FileInfo, damage, read_checked, unique_name, write_sealed
from vpr_dhe.index.vectors import RowTerms

_TERMS = np.dtype([("id", "<i8"), ("scale", "<f4"), ("offset", "<f4")])


@dataclass(frozen=True)
class Parameters:
    """Learned parameters.

    Args:
        transform: of the vectors.
        hub_weight: share of a hub's mean similarity that is subtracted; 0 for none.
        mean_hub: mean of all hub means, which is subtracted from each so that similarities keep their level.
        reference: ids of the images, ascending, among which a hub's nearest are searched.
    """

    transform: VectorTransform
    hub_weight: float
    mean_hub: float
    reference: Int64[np.ndarray, " reference"]


@dataclass(frozen=True)
class ImageTerms:
    """Terms of images by id, ascending."""

    ids: Int64[np.ndarray, " images"]
    rows: RowTerms

    def of(self, ids: Int64[np.ndarray, " chosen"]) -> RowTerms:
        """Look up the terms of images, all of which must be known."""
        places = np.searchsorted(self.ids, ids)
        assert np.array_equal(self.ids[places], ids), "every image of an adapted index has terms"
        return self.rows.take(places)

    @classmethod
    def joined(cls, parts: "Sequence[ImageTerms]") -> "ImageTerms":
        """Join terms of different images, in the order of their ids."""
        ids = np.concatenate([part.ids for part in parts])
        scales = np.concatenate([part.rows.scales for part in parts])
        offsets = np.concatenate([part.rows.offsets for part in parts])
        # Workers of a cluster seal segments in any order.
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], RowTerms(scales[order], offsets[order]))


def save_parameters(folder: Path, parameters: Parameters) -> FileInfo:
    """Write the parameters durably."""
    transform = parameters.transform
    tensors = {
        "mean": transform.mean,
        "axes": transform.axes,
        "gains": transform.gains,
        "hubs": np.array([parameters.hub_weight, parameters.mean_hub], np.float64),
        "reference": parameters.reference,
    }
    return write_sealed(folder, f"{unique_name('adaptation')}.safetensors", safetensors.numpy.save(tensors))


def read_parameters(folder: Path, info: FileInfo, dimension: int) -> Parameters:
    """Read the parameters.

    Raises:
        IndexDamagedError: if they do not agree with their checksum, or have other shapes.
    """
    try:
        tensors = safetensors.numpy.load(read_checked(folder, info))
        transform = VectorTransform(tensors["mean"], tensors["axes"], tensors["gains"])
        weight, mean_hub = tensors["hubs"].tolist()
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise damage(folder / info.name, f"cannot be parsed ({error})") from error
    if transform.mean.shape != (dimension,) or transform.axes.shape != (len(transform.gains), dimension):
        raise damage(folder / info.name, f"does not fit vectors of {dimension} numbers")
    return Parameters(transform, weight, mean_hub, tensors["reference"])


def save_terms(folder: Path, terms: ImageTerms) -> FileInfo:
    """Write the terms of images durably."""
    table = np.empty(len(terms.ids), _TERMS)
    table["id"], table["scale"], table["offset"] = terms.ids, terms.rows.scales, terms.rows.offsets
    return write_sealed(folder, f"{unique_name('terms')}.bin", table.tobytes())


def read_terms(folder: Path, info: FileInfo) -> ImageTerms:
    """Read the terms of images.

    Raises:
        IndexDamagedError: if they do not agree with their checksum.
    """
    table = np.frombuffer(read_checked(folder, info), _TERMS)
    scales, offsets = (np.ascontiguousarray(table[name]) for name in ("scale", "offset"))
    return ImageTerms(np.ascontiguousarray(table["id"]), RowTerms(scales, offsets))


def no_terms() -> ImageTerms:
    """Make an empty table."""
    empty: Float32[np.ndarray, " 0"] = np.empty(0, np.float32)
    return ImageTerms(np.empty(0, np.int64), RowTerms(empty, empty))
