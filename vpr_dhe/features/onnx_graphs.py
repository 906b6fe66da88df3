"""ONNX graphs of extractors without their weights, which come from model files.

Models that differ only in their weights share a graph. Graphs of the bundled models are in the package. Others are
converted once, which takes seconds, and cached in the user cache.
"""

import hashlib
import json
import logging
import os
import textwrap
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import torch

from vpr_dhe.errors import ExportError
from vpr_dhe.models.exported_model import without_zero_code_bits
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Grid
from vpr_dhe.runtime.durable_files import write_durably
from vpr_dhe.runtime.extras import EXTRAS, is_installed, require_extra
from vpr_dhe.runtime.user_cache import user_cache

FORMAT = "vpr-dhe graph 2"
"""Part of the key of a graph; change it when the graphs change, or when code changes the bundled networks' outputs."""

_ONNX, _DESCRIPTION = "graph.onnx", "graph.json"
_SUFFIX, _REFUSED = ".zip", ".refused"
_KEY_LENGTH = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnnxGraph:
    """Network in ONNX without its weights.

    Args:
        content: an ONNX file.
        weights: names of the tensors of a model file that the network needs.
        dimension: length of global descriptors.
        local_dimension: length of the descriptors in local maps.
        grid: cells of local maps.
        code_bits: length of binary codes; 0 without codes.
    """

    content: bytes
    weights: tuple[str, ...]
    dimension: int
    local_dimension: int
    grid: Grid
    code_bits: int = 0

    def session(self, model: ModelFile) -> OnnxSession:
        """Open the network with the weights of a model."""
        return OnnxSession(self.content, weights={name: model.tensors[name].float() for name in self.weights})

    def to_bytes(self) -> bytes:
        """Serialise the graph to the content of a file."""
        description = without_zero_code_bits(asdict(self))
        description.pop("content")
        file = BytesIO()
        with ZipFile(file, "w", ZIP_DEFLATED) as archive:
            # Without a date, so that the same graph gives the same file.
            archive.writestr(ZipInfo(_ONNX), self.content, ZIP_DEFLATED)
            archive.writestr(ZipInfo(_DESCRIPTION), json.dumps(description), ZIP_DEFLATED)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, file: bytes) -> "OnnxGraph":
        """Read the content of a file.

        Raises:
            ValueError: if it is damaged.
        """
        try:
            with ZipFile(BytesIO(file)) as archive:
                content, description = archive.read(_ONNX), json.loads(archive.read(_DESCRIPTION))
            weights, grid = tuple(description.pop("weights")), Grid(*description.pop("grid"))
            return cls(content, weights, grid=grid, **description)
        except (BadZipFile, EOFError, KeyError, TypeError, zlib.error) as error:
            raise ValueError(f"damaged graph ({error})") from error


def graph_for(model: ModelFile, *, required: bool) -> OnnxGraph | None:
    """Look up the graph of a model's extractor, or convert it and cache it in the user cache.

    Unless it is `required`, returns None if torch should run the network instead: packages of the extra `export` are
    missing, the network could not be converted before, or the cache cannot be written, so that the conversion would be
    repeated at each start.

    Raises:
        MissingExtraError: if it is required and must be converted, and packages for that are missing.
        ExportError: if it is required and cannot be converted.
        ModelError: if the weights do not fit the architecture of the model.
    """
    key = graph_key(model)
    if (graph := _bundled(key) or _cached(key)) is not None:
        return graph
    if required:
        require_extra("export")
    elif not _worth_converting(key):
        return None
    _log.info("converting %s for ONNX Runtime, once; this takes seconds", model.name)
    try:
        graph = convert(model)
    except ExportError as error:
        # Outputs may differ by the fault of these weights, and memory or disk be short this time.
        if isinstance(error, _UnsupportedNetworkError):
            _keep(f"{key}{_REFUSED}", str(error).encode())
        if required:
            raise
        return None
    _keep(f"{key}{_SUFFIX}", graph.to_bytes())
    return graph


def graph_key(model: ModelFile) -> str:
    """Key of the graph of a model's extractor: its architecture, input size, and the shapes of its weights."""
    architecture, size = model.architecture, model.preprocessing.size
    shapes = sorted((name, list(value.shape)) for name, value in model.tensors.items() if not name.startswith("head."))
    parts = [FORMAT, architecture.backbone, architecture.aggregator, architecture.blocks, [*size], shapes]
    if architecture.local_head is not None:
        parts.append(architecture.local_head)
    if model.preprocessing.resize_mode != "squeeze":
        parts.append(model.preprocessing.resize_mode)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_KEY_LENGTH]


class _UnsupportedNetworkError(ExportError):
    """The installed packages cannot convert networks of an architecture."""


def convert(model: ModelFile) -> OnnxGraph:
    """Convert the network of a model's extractor.

    Raises:
        ExportError: if torch cannot convert it, or the outputs differ.
        ModelError: if the weights do not fit the architecture of the model.
    """
    from vpr_dhe.features.exportable import extractor_network
    from vpr_dhe.features.neural_extractor import NeuralExtractor
    from vpr_dhe.models.onnx_conversion import convert_without_weights

    extractor = NeuralExtractor(model, model.name, torch.device("cpu"))
    spec = extractor.spec
    try:
        converted = convert_without_weights(extractor_network(extractor, model.preprocessing))
    except ExportError:
        raise
    except Exception as error:  # the libraries that convert raise errors of any kind
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder="...")
        kind = ExportError if isinstance(error, (MemoryError, OSError)) else _UnsupportedNetworkError
        raise kind(f"{model.name} cannot be converted to ONNX ({reason}); use --runtime torch") from error
    return OnnxGraph(
        converted.content, converted.weights, spec.dimension, spec.local_dimension, spec.grid, spec.code_bits
    )


def write_graph(model: ModelFile, folder: Path) -> Path:
    """Convert a model, write its graph to a folder in the format of the bundled graphs, and return the path."""
    path = folder / f"{model.name}-{graph_key(model)}{_SUFFIX}"
    path.write_bytes(convert(model).to_bytes())
    return path


def _bundled(key: str) -> OnnxGraph | None:
    """Load a graph that is bundled with the package."""
    for entry in (resources.files("vpr_dhe.models") / "graphs").iterdir():
        if entry.name.endswith(f"{key}{_SUFFIX}"):
            return OnnxGraph.from_bytes(entry.read_bytes())
    return None


def _cached(key: str) -> OnnxGraph | None:
    """Load a graph from the user cache; None if it is missing or unreadable."""
    with suppress(OSError, ValueError):
        return OnnxGraph.from_bytes((_cache_folder() / f"{key}{_SUFFIX}").read_bytes())
    return None


def _worth_converting(key: str) -> bool:
    """Whether a conversion is possible and its result can be cached."""
    if not all(map(is_installed, EXTRAS["export"].modules)):
        return False
    with suppress(OSError):
        folder = _cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK) and not (folder / f"{key}{_REFUSED}").exists()
    return False


def _keep(name: str, content: bytes) -> None:
    """Write a file to the cache atomically; do nothing if the cache cannot be written."""
    with suppress(OSError):
        folder = _cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder, f"{os.getpid()}-{name}", content).replace(folder / name)


def _cache_folder() -> Path:
    """Cache folder for graphs, specific to the code of the networks and the versions of the converters."""
    converters = "-".join(version(name) for name in ("onnxscript", "onnx_ir") if is_installed(name))
    key = hashlib.sha256(f"{_code_of_networks()} {converters}".encode()).hexdigest()[:_KEY_LENGTH]
    return user_cache("onnx") / f"torch-{torch.__version__}-timm-{version('timm')}-{key}"


@cache
def _code_of_networks() -> str:
    """Digest of the code of networks and of their conversion; a change invalidates converted graphs."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    others = (package / "models" / name for name in ("positional_embedding.py", "onnx_conversion.py"))
    for path in (*sorted((package / "features").rglob("*.py")), *others):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:_KEY_LENGTH]
