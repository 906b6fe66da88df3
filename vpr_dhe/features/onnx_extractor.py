"""An extractor whose network is an ONNX file, with the features of the model that was exported."""

from collections.abc import Sequence

import torch

from vpr_dhe.features.base import DenseFeatures, Extractor, ExtractorSpec
from vpr_dhe.images import to_network_input
from vpr_dhe.models.exported_model import EXTRACTOR, ExportedModel
from vpr_dhe.records import Features, Image


class OnnxExtractor(Extractor):
    """Describes images by ONNX Runtime; preprocessing is that of every other extractor.

    Raises:
        ModelError: if the export holds no extractor, or is damaged.
        MissingExtraError: if ONNX Runtime is not installed.
    """

    def __init__(self, model: ExportedModel) -> None:
        facts = model.facts
        self._session, self._preprocessing = model.session(EXTRACTOR), facts.preprocessing
        self.model_file = model
        self.spec = ExtractorSpec(
            model=str(model.folder),
            fingerprint=facts.fingerprint,
            dimension=facts.dimension,
            local_dimension=facts.local_dimension,
            grid=facts.grid,
            input_size=facts.preprocessing.size,
            unit_norm=facts.architecture.unit_norm,
            tolerance_cells=facts.architecture.tolerance_cells,
        )

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Describe each image; features are on the CPU."""
        vectors, local_maps = self._session(to_network_input(images, self._preprocessing, torch.device("cpu")))
        return DenseFeatures(vectors, local_maps, self.spec.grid).features(images, self.spec.input_size)
