"""Groups of options that several commands share, each with what is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypedDict

import typer

from vpr_dhe.cli.common import parse_names, say
from vpr_dhe.errors import BadInputError
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.runtime.choices import AUTO, ExtractorPrecision, Runtime
from vpr_dhe.verification.names import DEFAULT_VERIFIER

if TYPE_CHECKING:
    from vpr_dhe.datasets import Protocol
    from vpr_dhe.features.base import Extractor
    from vpr_dhe.index.place_index import AddReport, PlaceIndex
    from vpr_dhe.records import ImageRecord, Progress

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DeviceOption: TypeAlias = Annotated[Device, typer.Option(help="Where networks run.")]
WeightsOption: TypeAlias = Annotated[
    list[Path] | None, typer.Option(help="Network of a verifier that has one of its own; may be given for each.")
]


def pick_device(device: Device) -> str:
    """Choose the device; only the command line does so, the library is told."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError("--device cuda was asked for, but torch sees no CUDA device; use --device cpu")
    if device == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


class Loading(TypedDict):
    """Arguments by which library functions load a model."""

    device: str
    runtime: Runtime
    precision: ExtractorPrecision


@dataclass(frozen=True)
class RuntimeOptions:
    """What runs a model, where, and how exactly."""

    runtime: Annotated[
        Runtime, typer.Option(help="Insist on torch, or on onnx for a folder of `vpr-dhe export`; auto is what fits.")
    ] = AUTO
    device: DeviceOption = AUTO
    precision: Annotated[
        ExtractorPrecision, typer.Option(help="Of a network's products; features of both can be compared.")
    ] = "fp32"

    def loading(self) -> Loading:
        """Choose the device, and say where bf16 is slower there."""
        device = pick_device(self.device)
        if self.precision == "bf16":
            _say_if_bfloat16_is_slow(device)
        return Loading(device=device, runtime=self.runtime, precision=self.precision)


def _say_if_bfloat16_is_slow(device: str) -> None:
    import torch

    from vpr_dhe.runtime.cpu_features import has_bfloat16_products

    if not has_bfloat16_products(torch.device(device)):
        say(f"{device} has no products of its own in bfloat16; --precision fp32 is faster here")


@dataclass(frozen=True)
class ModelOptions(RuntimeOptions):
    """A model by name, and what runs it."""

    model: Annotated[str, typer.Option(help="Model name or file, see `vpr-dhe models`.")] = DEFAULT_MODEL


@dataclass(frozen=True)
class IndexModelOptions(RuntimeOptions):
    """The model that an index was made with, and what runs it."""

    model: Annotated[str | None, typer.Option(help="Where the index's model is now, if it moved or was exported.")] = (
        None
    )


@dataclass(frozen=True)
class PairModelOptions(RuntimeOptions):
    """A model whose dense features of two images are matched, and what runs it."""

    model: Annotated[
        str | None, typer.Option(help="Model name or file; methods with a head need it. [sparse keypoints]")
    ] = None


@dataclass(frozen=True)
class VerifierOptions:
    """A verifier, and how many candidates it looks at."""

    verifier: Annotated[str, typer.Option(help="Verifier, or none; see `vpr-dhe verifiers`.")] = DEFAULT_VERIFIER
    weights: WeightsOption = None
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to verify per query.")] = 100

    def say_if_slow(self) -> None:
        """Say so before a verifier that takes seconds per candidate looks at many."""
        say_if_slow([self.verifier], self.rerank)


@dataclass(frozen=True)
class VerifiersOptions:
    """Verifiers that are compared."""

    verifier: Annotated[
        list[str] | None,
        typer.Option(help=f"One or several verifiers, or none; see `vpr-dhe verifiers`. [{DEFAULT_VERIFIER}]"),
    ] = None
    weights: WeightsOption = None

    @property
    def names(self) -> tuple[str, ...]:
        """The verifiers by name, each once."""
        return parse_names(self.verifier or [DEFAULT_VERIFIER])


def say_if_slow(verifiers: Sequence[str], rerank: int) -> None:
    """One line on stderr for each verifier that takes seconds per candidate and is asked for many."""
    from vpr_dhe.verification.estimators.registry import METHODS

    for name in verifiers:
        usual = METHODS[name].recommended_rerank if name in METHODS else None
        if usual is not None and rerank > usual:
            say(f"{name} takes seconds per candidate, and --rerank is {rerank}; about {usual} are usual")


@dataclass(frozen=True)
class ProtocolOptions:
    """What may be chosen of a data set's protocol."""

    split: Annotated[str | None, typer.Option(help="train, val or test; for msls also names of cities.")] = None
    variant: Annotated[str | None, typer.Option(help="For msls: official (740 queries in val) or all (11,084).")] = None
    database: Annotated[str | None, typer.Option(help="Folder or list of the database, within DATA.")] = None
    queries: Annotated[str | None, typer.Option(help="Folder or list of the queries, within DATA.")] = None
    positions: Annotated[Path | None, typer.Option(help="CSV with the positions of all images.")] = None
    ground_truth: Annotated[Path | None, typer.Option(help="CSV or npz that says which images are right.")] = None
    radius_m: Annotated[
        float | None, typer.Option(min=0, help="Distance in metres up to which an image is right; mostly 25.")
    ] = None
    heading_tolerance_deg: Annotated[
        float | None, typer.Option(min=0, max=180, help="Right images must also look the same way, up to this.")
    ] = None
    frame_tolerance: Annotated[int | None, typer.Option(min=0, help="The same in frames, without positions.")] = None
    query_step: Annotated[int | None, typer.Option(min=1, help="With frames: ask every n-th query.")] = None

    def protocol(self) -> "Protocol":
        """The protocol of these choices."""
        from vpr_dhe.datasets import Protocol

        return Protocol(**vars(self))


@dataclass(frozen=True)
class ExtractionOptions(RuntimeOptions):
    """What runs a model, where, on how many images at once, and who decodes them."""

    batch_size: Annotated[int, typer.Option(min=1, help="Images per step of the extractor.")] = 8
    compile: Annotated[bool, typer.Option("--compile", help="Have torch compile the network first.")] = False
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode images; 0 is for threads.")] = 0
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Extract on the machines of a Ray cluster.")
    ] = None

    def __post_init__(self) -> None:
        if self.ray and self.workers:
            raise BadInputError("--workers are processes of this machine, and --ray has others decode; use one of them")

    def load(self, model: str) -> "Extractor":
        """Load the extractor of a model."""
        from vpr_dhe.features.extractor import load_extractor

        return load_extractor(model, **self.loading(), compiled=self.compile)

    def add(
        self,
        index: "PlaceIndex",
        records: Sequence["ImageRecord"],
        extractor: "Extractor",
        model: str,
        *,
        strict: bool,
        progress: "Progress",
    ) -> "AddReport":
        """Bring an index up to date with these images, by `extractor`, which is that of `model`."""
        from vpr_dhe.distributed.extraction import Workers, add_with_ray

        if self.ray is None:
            return index.add(
                records,
                extractor,
                batch_size=self.batch_size,
                strict=strict,
                workers=self.workers,
                progress=progress,
            )
        workers = Workers.of(model, pick_device(self.device), precision=self.precision, compiled=self.compile)
        return add_with_ray(
            index,
            records,
            extractor,
            workers,
            address=self.ray,
            batch_size=self.batch_size,
            strict=strict,
            progress=progress,
        )
