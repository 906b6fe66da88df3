"""Groups of options that several commands share, and the objects that they build."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypedDict

import typer

from vpr_dhe.cli.shared.callbacks import (
    existing_file,
    existing_files,
    existing_index,
    known_model,
    known_verifier,
    known_verifiers,
    one_of,
    parse_names,
    writable_file,
)
from vpr_dhe.cli.shared.help import OUTPUT
from vpr_dhe.cli.shared.messages import LOG
from vpr_dhe.cli.shared.progress import DocumentFormat, print_stderr
from vpr_dhe.errors import BadInputError
from vpr_dhe.models.names import BUNDLED, DEFAULT_MODEL
from vpr_dhe.models.published import PUBLISHED
from vpr_dhe.runtime.choices import (
    AUTO,
    CODEC_NAMES,
    FP32,
    INDEX_TYPE_NAMES,
    LAYOUT_NAMES,
    MAX_PIXELS,
    PAIR_LAYOUT_NAMES,
    Adapt,
    Device,
    ExtractorPrecision,
    Precision,
    RankByChoice,
    Runtime,
)
from vpr_dhe.verification.names import DEFAULT_VERIFIER, aligners_beginning_with, verifiers_beginning_with

if TYPE_CHECKING:
    from vpr_dhe.datasets import Protocol
    from vpr_dhe.features.base import Extractor
    from vpr_dhe.index.add_report import AddReport
    from vpr_dhe.index.indexing import AddImages
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.records import ImageRecord, Progress


def complete_model(incomplete: str) -> list[str]:
    """Complete the name of a bundled or published model in a shell."""
    return [name for name in (*BUNDLED, *PUBLISHED) if name.startswith(incomplete)]


def complete_aligner(incomplete: str) -> list[str]:
    """Complete the name of a method of `align` in a shell, after a comma too."""
    return _complete_last(incomplete, aligners_beginning_with)


def complete_verifier(incomplete: str) -> list[str]:
    """Complete the name of a verifier in a shell, after a comma too."""
    return _complete_last(incomplete, verifiers_beginning_with)


def _complete_last(incomplete: str, names_beginning_with: Callable[[str], list[str]]) -> list[str]:
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in names_beginning_with(last)]


IndexArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="Index made by `vpr-dhe index`.", callback=existing_index)
]
FormatOption: TypeAlias = Annotated[
    DocumentFormat | None,
    typer.Option(rich_help_panel=OUTPUT, help="Output format. [default: from the extension of --out, else table]"),
]
OutOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=OUTPUT,
        help="Write the result here instead of stdout; .json sets the format.",
        callback=writable_file,
    ),
]
ResultsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(rich_help_panel=OUTPUT, help="Write the results here as JSON.", callback=writable_file),
]
CODEC_OPTION = typer.Option(
    metavar="|".join(CODEC_NAMES), help="Codec of local maps.", callback=one_of("codec", CODEC_NAMES)
)
INDEX_TYPE_OPTION = typer.Option(
    metavar="|".join(INDEX_TYPE_NAMES),
    help="Index type of global descriptors.",
    callback=one_of("index type", INDEX_TYPE_NAMES),
)
LayoutOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="|".join(LAYOUT_NAMES),
        help="Layout of DATA; auto recognises it.",
        # `evaluate` names the command for those of pairs.
        callback=one_of("layout", LAYOUT_NAMES, PAIR_LAYOUT_NAMES),
    ),
]
DeviceOption: TypeAlias = Annotated[Device, typer.Option(help="Device of networks.")]
WeightsOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(help="Network file of a verifier that needs one; may be repeated.", callback=existing_files),
]
MaxMegapixelsOption: TypeAlias = Annotated[
    float, typer.Option(min=0.001, max=1e6, help="Maximum size of an image; larger ones are skipped.")
]
DEFAULT_MEGAPIXELS = MAX_PIXELS / 1e6
StopEarlyOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="MARGIN",
        help="Verify no more candidates once the best stands out by this margin, such as 8, in standard deviations.",
    ),
]


def pick_device(device: Device) -> str:
    """Resolve `auto` to a device; the library itself never chooses one."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError("--device is cuda, but torch finds no CUDA device; use --device cpu")
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    LOG.info("device %s, torch %s, %d threads", device, torch.__version__, torch.get_num_threads())
    return device


class Loading(TypedDict):
    """Keyword arguments of library functions that load a model and a verifier."""

    device: str
    runtime: Runtime
    precision: Precision


@dataclass(frozen=True)
class RuntimeOptions:
    """Device and runtime of a model."""

    TITLE = "Model"

    runtime: Annotated[
        Runtime, typer.Option(help="Runtime of networks; auto is onnx on a CPU, if it can run the model.")
    ] = AUTO
    device: DeviceOption = AUTO


@dataclass(frozen=True)
class NetworkOptions(RuntimeOptions):
    """Device, runtime and precision of a model and of the head that verifies."""

    precision: Annotated[
        Precision,
        typer.Option(
            help="Precision of matrix products; features of all can be compared. int8 is of the head of dhe alone, on "
            "CPUs with AVX-512 VNNI."
        ),
    ] = FP32

    def loading(self) -> Loading:
        """Resolve the device, and warn if bf16 is slower on it."""
        device = _device_for(self.device, self.precision)
        return Loading(device=device, runtime=self.runtime, precision=self.precision)


def _device_for(choice: Device, precision: Precision) -> str:
    """Resolve a device, and warn if bf16 is asked for and slower on it."""
    import torch

    from vpr_dhe.runtime.cpu_features import has_bfloat16_products

    device = pick_device(choice)
    if precision == "bf16" and not has_bfloat16_products(torch.device(device)):
        print_stderr(f"{device} has no native bfloat16 products; --precision fp32 is faster here")
    return device


@dataclass(frozen=True)
class ModelOptions(NetworkOptions):
    """Model by name, with device, runtime and precision."""

    model: Annotated[
        str,
        typer.Option(
            help="Model name or file; see `vpr-dhe models`.", callback=known_model, autocompletion=complete_model
        ),
    ] = DEFAULT_MODEL


@dataclass(frozen=True)
class IndexModelOptions(NetworkOptions):
    """Model of an index, with device, runtime and precision."""

    model: Annotated[
        str | None,
        typer.Option(
            help="New path of the index's model, if it was moved or exported.",
            callback=known_model,
            autocompletion=complete_model,
        ),
    ] = None


@dataclass(frozen=True)
class PairModelOptions(NetworkOptions):
    """Model whose dense features of two images are matched, with device, runtime and precision."""

    model: Annotated[
        str | None,
        typer.Option(
            help="Model name or file; methods with a head need it. [sparse keypoints]",
            callback=known_model,
            autocompletion=complete_model,
        ),
    ] = None


RerankOption: TypeAlias = Annotated[
    int,
    typer.Option(
        min=1, help="Number of candidates to re-rank; most verifiers verify the 16 that a coarse pass selects."
    ),
]


@dataclass(frozen=True)
class VerifierOptions:
    """Verifier and its number of candidates."""

    TITLE = "Verification"

    verifier: Annotated[
        str,
        typer.Option(
            help="Verifier, or none; see `vpr-dhe verifiers`.",
            callback=known_verifier,
            autocompletion=complete_verifier,
        ),
    ] = DEFAULT_VERIFIER
    weights: WeightsOption = None
    rerank: RerankOption = 100

    def warn_if_slow(self) -> None:
        """Warn if the verifier takes seconds per candidate and gets many."""
        warn_if_slow([self.verifier], self.rerank)


def known_bit_depth(text: str | None) -> str | None:
    """Return a bit depth, checked; None stands for another default."""
    if text is not None:
        from vpr_dhe.index.grey_levels import parse_bit_depth

        parse_bit_depth(text)
    return text


BitDepthOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N|LOW:HIGH",
        help="Grey levels of 16-bit images: bits such as 12, or values such as 7000:9000. [found from the first]",
        callback=known_bit_depth,
    ),
]

AdaptOption: TypeAlias = Annotated[
    Adapt, typer.Option(help="Search vectors adapted to their map, if the index is, or (off) as extracted.")
]


@dataclass(frozen=True)
class RankingOptions(VerifierOptions):
    """Verifier, its number of candidates, and their order."""

    rank_by: Annotated[
        RankByChoice,
        typer.Option(help="Rank by inliers, or by evidence (inliers and similarity together); auto is the index's."),
    ] = AUTO
    adapt: AdaptOption = AUTO
    stop_early: StopEarlyOption = None


@dataclass(frozen=True)
class VerifiersOptions:
    """Verifiers to compare."""

    TITLE = "Verification"

    verifier: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Verifiers or none, repeated or separated by commas; see `vpr-dhe verifiers`. [{DEFAULT_VERIFIER}]",
            callback=known_verifiers,
            autocompletion=complete_verifier,
        ),
    ] = None
    weights: WeightsOption = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the verifiers, each once."""
        return parse_names(self.verifier or [DEFAULT_VERIFIER])


def open_localizer(
    index: Path,
    verification: RankingOptions,
    model: IndexModelOptions,
    *,
    max_megapixels: float = DEFAULT_MEGAPIXELS,
) -> "Localizer":
    """Open an index with its model and a verifier, after a warning if the verifier is slow."""
    from vpr_dhe.localization.localizer import Localizer

    verification.warn_if_slow()
    localizer = Localizer.open(
        index,
        verifier=verification.verifier,
        rerank=verification.rerank,
        rank_by=verification.rank_by,
        adapt=verification.adapt,
        stop_early=verification.stop_early,
        weights=verification.weights or (),
        model=model.model,
        max_pixels=int(1e6 * max_megapixels),
        **model.loading(),
    )
    spec, images = localizer.database.spec, localizer.database.image_count
    LOG.info(
        "%s: %d images, model %s, verifier %s, rank by %s",
        index,
        images,
        spec.model,
        verification.verifier,
        localizer.rank_by,
    )
    LOG.info("calibration: %s; adaptation: %s", localizer.calibration_source, localizer.adaptation is not None)
    return localizer


def warn_if_slow(verifiers: Sequence[str], rerank: int) -> None:
    """Print one line on stderr for each verifier that takes seconds per candidate and gets many."""
    from vpr_dhe.verification.estimators.registry import find_estimator

    for name in verifiers:
        spec = find_estimator(name)
        usual = spec and spec.recommended_rerank
        if usual is not None and rerank > usual:
            print_stderr(f"{name} takes seconds per candidate, and --rerank is {rerank}; about {usual} are usual")


@dataclass(frozen=True)
class ProtocolOptions:
    """Choices within a data set's protocol."""

    TITLE = "Data set"

    split: Annotated[str | None, typer.Option(help="Split: train, val or test; for msls also names of cities.")] = None
    variant: Annotated[
        str | None, typer.Option(help="Variant of msls: official (740 queries in val) or all (11,084).")
    ] = None
    database: Annotated[str | None, typer.Option(help="Folder or list of the database, within DATA.")] = None
    queries: Annotated[str | None, typer.Option(help="Folder or list of the queries, within DATA.")] = None
    positions: Annotated[
        Path | None, typer.Option(help="CSV with the positions of all images.", callback=existing_file)
    ] = None
    ground_truth: Annotated[
        Path | None, typer.Option(help="CSV or npz with the positives of each query.", callback=existing_file)
    ] = None
    radius_m: Annotated[
        float | None, typer.Option(min=0, help="Maximum distance of positives in metres; usually 25.")
    ] = None
    heading_tolerance_deg: Annotated[
        float | None, typer.Option(min=0, max=180, help="Maximum difference in heading of positives.")
    ] = None
    frame_tolerance: Annotated[
        int | None, typer.Option(min=0, help="Maximum distance of positives in frames, without positions.")
    ] = None
    query_step: Annotated[int | None, typer.Option(min=1, help="Use every n-th query, with --frame-tolerance.")] = None

    def protocol(self) -> "Protocol":
        """Build the protocol."""
        from vpr_dhe.datasets import Protocol

        return Protocol(**vars(self))


class _ExtractorLoading(TypedDict):
    """Keyword arguments of library functions that load a model alone."""

    device: str
    runtime: Runtime
    precision: ExtractorPrecision
    compiled: bool


class _Extraction(_ExtractorLoading):
    """Keyword arguments of `index_images` about the extraction."""

    batch_size: int
    workers: int
    max_pixels: int
    add_images: "AddImages | None"


@dataclass(frozen=True)
class ExtractionOptions(RuntimeOptions):
    """Device, runtime and precision of a model, batch size, and decoding processes."""

    TITLE = "Extraction"

    precision: Annotated[
        ExtractorPrecision, typer.Option(help="Precision of matrix products; features of both can be compared.")
    ] = FP32
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step of the extractor.")] = 8
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network with torch first.")] = False
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that decode images; 0 uses threads.")] = 0
    max_megapixels: MaxMegapixelsOption = DEFAULT_MEGAPIXELS
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Extract on the machines of a Ray cluster.")
    ] = None

    def __post_init__(self) -> None:
        if self.ray and self.workers:
            raise BadInputError(
                "--workers sets processes of this machine, and --ray decodes on others; use one of them"
            )

    def keywords(self, *, strict: bool) -> "_Extraction":
        """Keyword arguments of `index_images` about the extraction; `strict` as given to it."""
        device, max_pixels = _device_for(self.device, self.precision), int(1e6 * self.max_megapixels)
        loading = _ExtractorLoading(
            device=device, runtime=self.runtime, precision=self.precision, compiled=self.compile
        )
        add_images = None if self.ray is None else self._add_with_ray(self.ray, loading, strict, max_pixels)
        return _Extraction(
            **loading,
            batch_size=self.batch_size,
            workers=self.workers,
            max_pixels=max_pixels,
            add_images=add_images,
        )

    def _add_with_ray(self, address: str, loading: "_ExtractorLoading", strict: bool, max_pixels: int) -> "AddImages":
        """Make the function that extracts images on a cluster."""
        from vpr_dhe.distributed.extraction import Workers, add_with_ray

        def add(
            index: "PlaceIndex", records: Sequence["ImageRecord"], extractor: "Extractor", *, progress: "Progress"
        ) -> "AddReport":
            return add_with_ray(
                index,
                records,
                extractor,
                Workers.of(extractor.spec.model, **loading),
                address=address,
                batch_size=self.batch_size,
                strict=strict,
                max_pixels=max_pixels,
                progress=progress,
            )

        return add
