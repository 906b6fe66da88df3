"""Extractor of a network that ONNX Runtime runs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.features.base import DenseFeatures, Extractor, ExtractorSpec, extract_by_size
from vpr_dhe.features.onnx_graphs import OnnxGraph
from vpr_dhe.models.exported_model import EXTRACTOR, ExportedModel, ExportInfo
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Features, Image, Preprocessing
from vpr_dhe.runtime.threads import in_parallel

_CPU = torch.device("cpu")


class OnnxExtractor(Extractor):
    """Extractor with a network in ONNX Runtime; its features can be compared with those of torch."""

    def __init__(
        self,
        model: ModelFile | ExportedModel,
        spec: ExtractorSpec,
        preprocessing: Preprocessing,
        session: OnnxSession,
    ) -> None:
        self.model_file, self.spec = model, spec
        self._preprocessing, self._session = preprocessing, session
        self.arithmetic = f"onnx {session.device}"

    @classmethod
    def of_export(cls, model: ExportedModel) -> "OnnxExtractor":
        """Make the extractor of an export, on the export's device.

        Raises:
            ModelError: if the export contains no extractor, or is damaged.
        """
        info = model.info
        spec = _spec(str(model.folder), info.fingerprint, info, info)
        return cls(model, spec, info.preprocessing, model.session(EXTRACTOR))

    @classmethod
    def of_model(cls, model: ModelFile, name: str, graph: OnnxGraph) -> "OnnxExtractor":
        """Make the extractor of a model file on the CPU from its graph."""
        spec = _spec(name, model.extractor_fingerprint, model, graph)
        return cls(model, spec, model.preprocessing, graph.session(model))

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image; they are on the CPU.

        With images for all cores, each core takes one at a time: an image fits its caches, a batch does not.
        """
        whole = self._session.device != "cpu" or len(images) < torch.get_num_threads()
        parts = [images] if whole else [[image] for image in images]
        return [features for part in in_parallel(self._extract_part, parts) for features in part]

    def _extract_part(self, images: Sequence[Image]) -> list[Features]:
        return extract_by_size(images, self._preprocessing, _CPU, self._extract_batch)

    def _extract_batch(self, batch: Float[Tensor, "batch 3 height width"]) -> DenseFeatures:
        vectors, local_maps, *codes = self._session(batch)
        return DenseFeatures(vectors, local_maps, self.spec.grid, *codes)


def _spec(name: str, fingerprint: str, model: ModelFile | ExportInfo, outputs: OnnxGraph | ExportInfo) -> ExtractorSpec:
    return ExtractorSpec(
        model=name,
        fingerprint=fingerprint,
        dimension=outputs.dimension,
        local_dimension=outputs.local_dimension,
        grid=outputs.grid,
        input_size=model.preprocessing.size,
        unit_norm=model.architecture.unit_norm,
        tolerance_cells=model.architecture.tolerance_cells,
        code_bits=outputs.code_bits,
    )
