"""Extractor of an exported network, run by ONNX Runtime."""

from collections.abc import Sequence

import torch

from vpr_dhe.features.base import DenseFeatures, Extractor, ExtractorSpec
from vpr_dhe.images import to_network_input
from vpr_dhe.models.exported_model import EXTRACTOR, ExportedModel
from vpr_dhe.records import Features, Image


class OnnxExtractor(Extractor):
    """Extractor with a network in ONNX Runtime; its features can be compared with the original model's.

    Raises:
        ModelError: if the export holds no extractor, or is damaged.
        MissingExtraError: if ONNX Runtime is not installed.
    """

    def __init__(self, model: ExportedModel) -> None:
        info = model.info
        self._session, self._preprocessing = model.session(EXTRACTOR), info.preprocessing
        self.model_file = model
        self.spec = ExtractorSpec(
            model=str(model.folder),
            fingerprint=info.fingerprint,
            dimension=info.dimension,
            local_dimension=info.local_dimension,
            grid=info.grid,
            input_size=info.preprocessing.size,
            unit_norm=info.architecture.unit_norm,
            tolerance_cells=info.architecture.tolerance_cells,
        )

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image; they are on the CPU."""
        vectors, local_maps = self._session(to_network_input(images, self._preprocessing, torch.device("cpu")))
        return DenseFeatures(vectors, local_maps, self.spec.grid).features(images, self.spec.input_size)
