"""Exportable network of an extractor, with tensors as inputs and outputs, and example inputs."""

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
    sides = (size.height, size.width) if network.map_grid is None else ("height", "width")
    compared = (
        "not normalised: L2-normalise it before it is compared by inner product"
        if spec.unit_norm
        else "not normalised: compare it by Euclidean distance"
    )
    codes = TensorInfo(
        "code_values", _FLOAT, ("images", spec.code_bits), "a bit of the binary code is 1 where these are >= 0"
    )
    return ExportableNetwork(
        _FeaturesAsTensors(network.backbone, network.aggregator, network.local_head, network.map_grid).eval(),
        (TensorInfo("images", _FLOAT, ("images", 3, *sides), _input_meaning(preprocessing)),),
        (
            TensorInfo("global_descriptor", _FLOAT, ("images", spec.dimension), compared),
            TensorInfo(
                "local_map",
                _FLOAT,
                ("images", cells, spec.local_dimension),
                f"{spec.grid.rows} x {spec.grid.columns} cells, row-major, each L2-normalised, or zero: no match",
            ),
            *([codes] if spec.code_bits else []),
        ),
        lambda images: (_textures(images, size if network.map_grid is None else _example_size(images, size)),),
    )


class _FeaturesAsTensors(ExtractorNetwork):
    """Extractor network that returns global descriptors, local maps and, if any, code values, without the grid."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (exported networks return tensors only)
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Tensor, ...]:
        vectors, local_maps, _, code_values = super().forward(images)
        return (vectors, local_maps) if code_values is None else (vectors, local_maps, code_values)


def _input_meaning(preprocessing: Preprocessing) -> str:
    antialias = "with" if preprocessing.antialias else "without"
    how = f"{preprocessing.interpolation}, {antialias} antialiasing, pixel centres at halves"
    if preprocessing.resizes_8_bit:
        how = f"{preprocessing.interpolation} of the 8-bit image, as Pillow does"
    width, height = preprocessing.size
    if preprocessing.resize_mode == "squeeze":
        size = f"each resized to exactly {width} x {height} pixels ({how}, aspect ratio not kept)"
    else:
        size = (
            f"at their own size, those with a short side of more than {min(width, height)} pixels resized to it ({how})"
        )
    return (
        f"RGB channels of upright images in [0, 1], {size}, minus {preprocessing.mean}, divided by {preprocessing.std}"
    )


def _example_size(images: int, size: Size) -> Size:
    """Image size that depends on the number of images, so that the export does not treat a side as constant."""
    return Size(size.width + 32 * images, size.height + 16 * images)


def _textures(images: int, size: Size) -> Float[Tensor, "images 3 height width"]:
    """Smooth random images with a little noise, similar to normalised photos."""
    coarse = interpolate(random_values(images, 3, 5, 7), (size.height, size.width), mode="bilinear")
    return coarse + 0.1 * random_values(images, 3, size.height, size.width)
