"""`vpr-dhe compact`: smaller index with faster search."""

from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import one_of
from vpr_dhe.cli.shared.options import IndexArgument
from vpr_dhe.cli.shared.progress import report_building, report_codec
from vpr_dhe.runtime.choices import CODEC_NAMES

NAME = "compact"
EXAMPLES = """
vpr-dhe compact my-index
vpr-dhe compact my-index --codec float16
"""


def run(
    index: IndexArgument,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(CODEC_NAMES), help="New codec of local maps.", callback=one_of("codec", CODEC_NAMES)
        ),
    ] = None,
) -> None:
    """Merge small segments, free the space of removed images, and build the files of the search."""
    from vpr_dhe.index.place_index import PlaceIndex

    place_index = PlaceIndex.open(index)
    before = place_index.manifest
    place_index.compact(codec=codec, announce=report_building)
    after = place_index.manifest
    report_codec(before.codec, after.codec)
    print(
        f"{index}: {after.count} images in {len(after.segments)} segments (from {len(before.segments)}), "
        f"{before.removed_count} removed images freed, local maps stored as {after.codec.name if after.codec else '-'}"
    )
