"""How a data set of places is read, as options that commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vpr_dhe.datasets import Protocol


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
