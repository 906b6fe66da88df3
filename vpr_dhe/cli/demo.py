"""`vpr-dhe demo`: offline demonstration on a small synthetic town."""

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import writable_file
from vpr_dhe.cli.shared.progress import progress_stages
from vpr_dhe.errors import BadInputError

NAME = "demo"
EXAMPLES = """
vpr-dhe demo
vpr-dhe demo --keep demo-town
"""


def run(
    picture: Annotated[
        Path, typer.Option(help="Write a picture of one verified match.", callback=writable_file)
    ] = Path("vpr-dhe-demo.png"),
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="New folder that keeps the town and its index.")
    ] = None,
    queries: Annotated[
        int, typer.Option("--queries-limit", "--queries", min=1, max=500, help="Number of queries.")
    ] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the town.")] = 0,
) -> None:
    """Build a small town, index its images, and localize new photos of it."""
    if keep and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise BadInputError(f"{keep} already exists; give the name of a new folder")
    from vpr_dhe.evaluation.demo import run_demo
    from vpr_dhe.report.pictures.adaptation import draw_examples
    from vpr_dhe.report.pictures.drawing import draw_match, write_picture
    from vpr_dhe.report.tables.evaluation import demo_table

    examples = picture.with_stem(f"{picture.stem}-adaptation")
    with (
        nullcontext(keep) if keep else TemporaryDirectory(prefix="vpr-dhe-demo-") as folder,
        progress_stages() as stage,
    ):
        demo = run_demo(Path(folder), seed=seed, queries=queries, stage=stage)
        if demo.adaptation.steps:
            write_picture(draw_examples(demo.index), examples)
    write_picture(draw_match(demo.shown.query, demo.shown.candidate, demo.shown.verification), picture)
    print(demo_table(demo))
    print(f"\n{picture}: the best verified match; lines join inliers, the frame is the outline of the query")
    if demo.adaptation.steps:
        print(f"{examples}: a hub, and an answer that the adaptation to the map corrects")
    if keep:
        print(f"{keep}: the town; to query it: vpr-dhe query {keep}/index {keep}/town/images/test/queries")
    print("\nnow your photos: vpr-dhe index PHOTOS --out my-index, then vpr-dhe query my-index PHOTO")
