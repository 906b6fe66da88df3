"""Options of who describes images, and how fast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import Device, Precision, Runtime, RuntimeOption, pick_device, require_runtime, say
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.features.base import Extractor
    from vpr_dhe.index.place_index import AddReport, PlaceIndex
    from vpr_dhe.records import ImageRecord, Progress


@dataclass(frozen=True)
class ExtractionOptions:
    """What runs a model, where, on how many images at once, and who decodes them."""

    runtime: RuntimeOption = Runtime.auto
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step of the extractor.")] = 8
    precision: Annotated[Precision, typer.Option(help="Of a network's products; queries may have another.")] = (
        Precision.fp32
    )
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
        import torch

        from vpr_dhe.features.extractor import load_extractor
        from vpr_dhe.runtime.cpu_features import has_bfloat16_products

        device = pick_device(self.device)
        require_runtime(self.runtime, model)
        extractor = load_extractor(model, device, precision=self.precision.value, compiled=self.compile)
        if self.precision is Precision.bf16 and not has_bfloat16_products(torch.device(device)):
            say(f"{device} has no products of its own in bfloat16; --precision fp32 is faster here")
        return extractor

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
        workers = Workers.of(model, pick_device(self.device), precision=self.precision.value, compiled=self.compile)
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
