"""`vpr-dhe frames`: frames of a recording as image files."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.recordings import RecordingOptions
from vpr_dhe.errors import BadInputError

NAME = "frames"
EXAMPLES = """
vpr-dhe frames --video drive.mp4 --min-seconds 1 --out frames
vpr-dhe frames --video ride.mp4 --track ride.gpx --min-metres 5 --out frames
vpr-dhe frames --bag drive.bag --topic /camera/image_raw --out frames
"""


def run(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Parent folder of the recording's frames.")],
    recording: RecordingOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged frame.")] = False,
) -> None:
    """Extract frames of a bag or a video as image files; an interrupted run can be continued."""
    if recording.given is None:
        raise BadInputError("give one recording by --bag or --video")
    from vpr_dhe.images.listing import list_images

    extracted = recording.extract(out, strict=strict)
    count = len(list_images(extracted.folder))
    print(f"{extracted.folder}: {count} frames, with times and positions in {extracted.table.name}")
