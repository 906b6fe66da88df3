"""Options that restrict a search to images near a known position."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.records import Near


@dataclass(frozen=True)
class NearOptions:
    """Circle that a search is restricted to."""

    TITLE = "Rough position"

    near: Annotated[
        str | None,
        typer.Option(
            metavar="LAT,LON",
            help="Search only images near this position in degrees, or X,Y for a map in local metres.",
        ),
    ] = None
    within_m: Annotated[float | None, typer.Option(help="Radius in metres around the position of --near.")] = None

    def require_consistent(self, *, sequence: bool) -> None:
        """Raise BadInputError unless position and radius are given together, and not for a sequence."""
        if (self.near is None) != (self.within_m is None):
            raise BadInputError("--near and --within-m belong together; give both, or leave both out")
        if self.near is not None and sequence:
            raise BadInputError(
                "--near is for single photos, and --sequence follows the camera through the whole map; leave one of "
                "them out"
            )

    def circle(self, localizer: "Localizer") -> "Near | None":
        """Circle in the index of a localizer, after one line on stderr about the images in it; None without one.

        Raises:
            BadInputError: if it cannot be read, or no image has a position.
        """
        if self.near is None or self.within_m is None:
            return None
        from vpr_dhe.localization.search_area import nearby_text, parse_near

        snapshot = localizer.index.snapshot
        near = parse_near(self.near, self.within_m, snapshot)
        print_stderr(f"searching {nearby_text(snapshot.within(near)[1])}")
        return near
