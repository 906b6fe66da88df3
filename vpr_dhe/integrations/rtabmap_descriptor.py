"""Global descriptors for RTAB-Map, which imports this file by its path, calls `init` once and `extract` per image.

Source: introlab/rtabmap, corelib/src/python/PyDescriptor.cpp for the calls; corelib/src/Signature.cpp for the use of
the vectors: their dot product, which must lie in [-1, 1].
"""

import os
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int8, UInt8
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.loading import require_image
from vpr_dhe.models.names import DEFAULT_MODEL

MODEL_VARIABLE = "VPR_DHE_MODEL"


class Descriptor:
    """Global descriptor of the model named by the environment variable VPR_DHE_MODEL."""

    def __init__(self) -> None:
        self._dimension = 0

    def init(self, dimension: int) -> None:
        """Store the parameter PyDescriptor/Dim.

        Must not fail, because RTAB-Map would continue without a result and crash.
        """
        self._dimension = dimension

    def extract(
        self, image: Int8[np.ndarray, "height width channels"] | UInt8[np.ndarray, "height width channels"]
    ) -> Float32[np.ndarray, "1 dimension"]:
        """Extract the descriptor of an image as RTAB-Map passes it: BGR or grey, unsigned bytes declared as signed.

        Raises:
            ImageError: if it has neither one channel nor three, or is smaller than 16 pixels on a side.
            ModelError: if the model is unknown, or PyDescriptor/Dim is not its dimension.
        """
        extractor = self._extractor
        if extractor.spec.dimension != self._dimension:
            raise ModelError(
                f"PyDescriptor/Dim is {self._dimension}, but descriptors of {extractor.spec.model} have "
                f"{extractor.spec.dimension} dimensions; set PyDescriptor/Dim to that"
            )
        rgb = require_image(image.view(np.uint8)[..., ::-1])
        descriptor = extractor.extract([rgb])[0].global_descriptor.float()
        return normalize(descriptor[None]).cpu().numpy()

    @cached_property
    def _extractor(self) -> Extractor:
        return load_extractor(os.environ.get(MODEL_VARIABLE, DEFAULT_MODEL))


_descriptor = Descriptor()
init, extract = _descriptor.init, _descriptor.extract
