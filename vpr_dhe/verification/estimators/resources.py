"""Resources that estimators are built from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vpr_dhe.features.base import Extractor
from vpr_dhe.models.exported_model import ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import StartProgress, without_progress
from vpr_dhe.runtime.choices import FP32, Precision


@dataclass(frozen=True)
class Resources:
    """Resources that estimators are built from: the extractor of the index, networks by method, device and precision.

    Slow methods report each pair to `start_progress`; those that can stop early do so after `max_seconds`.
    """

    extractor: Extractor | None = None
    networks: Mapping[str, NetworkFile] = field(default_factory=dict)
    device: str = "cpu"
    precision: Precision = FP32
    start_progress: StartProgress = without_progress
    max_seconds: float | None = None

    @property
    def model(self) -> ModelFile | ExportedModel | None:
        """Model file or export of the extractor, if there is one."""
        return None if self.extractor is None else self.extractor.model_file
