"""Network of an extractor in the form that is exported: tensors in, tensors out, with example inputs."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from vpr_dhe.features.neural_extractor import ExtractorNetwork, NeuralExtractor
from vpr_dhe.models.exported_model import TensorInfo
from vpr_dhe.models.onnx_conversion import ExportableNetwork, random_values
from vpr_dhe.records import Preprocessing, Size

_FLOAT = "float32"


def extractor_network(extractor: NeuralExtractor, preprocessing: Preprocessing) -> ExportableNetwork:
    """Make the exportable network of an extractor."""
    spec, network = extractor.spec, extractor.network
    size, cells = spec.input_size, spec.grid.rows * spec.grid.columns
    compared = (
        "not normalised: L2-normalise it before it is compared by inner product"
        if spec.unit_norm
        else "not normalised: compare it as it is, by Euclidean distance"
    )
    return ExportableNetwork(
        _FeaturesAsTensors(network.backbone, network.aggregator, network.local_head).eval(),
        (TensorInfo("images", _FLOAT, ("images", 3, size.height, size.width), _input_meaning(preprocessing)),),
        (
            TensorInfo("global_descriptor", _FLOAT, ("images", spec.dimension), compared),
            TensorInfo(
                "local_map",
                _FLOAT,
                ("images", cells, spec.local_dimension),
                f"{spec.grid.rows} x {spec.grid.columns} cells, row-major, each L2-normalised, or zero: no match",
            ),
        ),
        lambda images: (_textures(images, size),),
    )


class _FeaturesAsTensors(ExtractorNetwork):
    """Extractor network that returns global descriptors and local maps, without the grid."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (exported networks return tensors only)
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch dimension"], Float[Tensor, "batch cells local_dimension"]]:
        vectors, local_maps, _ = super().forward(images)
        return vectors, local_maps


def _input_meaning(preprocessing: Preprocessing) -> str:
    antialias = "with" if preprocessing.antialias else "without"
    return (
        f"RGB channels of upright images in [0, 1], each resized to exactly {preprocessing.width} x "
        f"{preprocessing.height} pixels ({preprocessing.interpolation}, {antialias} antialiasing, pixel centres at "
        f"halves, aspect ratio not kept), minus {preprocessing.mean}, divided by {preprocessing.std}"
    )


def _textures(images: int, size: Size) -> Float[Tensor, "images 3 height width"]:
    """Smooth random images with a little noise, similar to normalised photos."""
    coarse = interpolate(random_values(images, 3, 5, 7), (size.height, size.width), mode="bilinear")
    return coarse + 0.1 * random_values(images, 3, size.height, size.width)
