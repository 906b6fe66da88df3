"""`vpr-dhe index`: extract the images of a folder into an index."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import Device, pick_device, progress_bar, say_skipped

NAME = "index"


def run(
    images: Annotated[Path, typer.Argument(help="Folder of images; sub-folders are included.")],
    out: Annotated[Path, typer.Option(help="Folder to make for the index.")],
    model: Annotated[str, typer.Option(help="Model name or file; see `vpr-dhe models`.")] = "sift-vlad",
    add: Annotated[bool, typer.Option("--add", help="Add images that an existing index does not hold yet.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")] = False,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step of the extractor.")] = 8,
) -> None:
    """Index the images of a map."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.places.standard import read_split

    records = read_split(images).records
    extractor = load_extractor(model, pick_device(device))
    index = PlaceIndex.open(out) if add and out.exists() else PlaceIndex.create(out, extractor.spec, images)
    index.require_images_folder(images)
    fresh = index.missing(records)
    try:
        with progress_bar(len(fresh), "indexing", "image") as bar:
            report = index.add(fresh, extractor, batch_size=batch_size, strict=strict, progress=bar.update)
    except KeyboardInterrupt:
        for image in index.manifest.skipped:
            say_skipped(image.path, image.reason)
        print(f"interrupted: {len(index)} images are safe in {out}; go on with --add", file=sys.stderr)
        raise typer.Exit(1) from None
    for image in report.skipped:
        say_skipped(image.path, image.reason)
    if not len(index):
        raise BadInputError(f"none of the {len(fresh)} images in {images} could be read; the index is empty")
    print(f"{out}: {len(index)} images ({report.added} added, {len(report.skipped)} skipped), model {model}")
