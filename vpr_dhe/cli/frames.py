"""`vpr-dhe frames`: the frames of a recording as image files."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.recordings import RecordingOptions

NAME = "frames"


def run(
    out: Annotated[Path, typer.Option(help="Folder below which the recording gets one of its own.")],
    recording: RecordingOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first frame that is damaged.")] = False,
) -> None:
    """Extract frames of a bag or a video, to be asked for, looked at or indexed; an interrupted run goes on."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.images import list_images

    if recording.given is None:
        raise BadInputError("give one recording by --bag or --video")
    extracted = recording.extract(out, strict=strict)
    count = len(list_images(extracted.folder))
    print(f"{extracted.folder}: {count} frames, and what is known of them in {extracted.table.name}")
