"""`vpr-dhe evaluate`: recall@N of a model and a verifier on a data set."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from vpr_dhe.cli.common import Device, parse_ranks, pick_device, progress_bar, require_writable, say_skipped

NAME = "evaluate"


def run(
    data: Annotated[Path, typer.Argument(help="Data set in the standard layout, or with `database` and `queries`.")],
    layout: Annotated[str, typer.Option(help="auto, vpr or folders.")] = "auto",
    split: Annotated[str, typer.Option(help="Split of the standard layout.")] = "test",
    model: Annotated[str, typer.Option(help="Model name or file; see `vpr-dhe models`.")] = "sift-vlad",
    verifier: Annotated[str, typer.Option(help="Verifier, or none; see `vpr-dhe verifiers`.")] = "magsac",
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to verify per query.")] = 100,
    recall_at: Annotated[str, typer.Option(help="Values of N, separated by commas.")] = "1,5,10,20",
    radius_m: Annotated[float, typer.Option(min=0, help="Distance in metres up to which an image is right.")] = 25.0,
    frame_tolerance: Annotated[int, typer.Option(min=0, help="For folders without positions: frames.")] = 0,
    codec: Annotated[str, typer.Option(help="How local maps are stored: auto, float16, int8, ...")] = "auto",
    index_type: Annotated[str, typer.Option(help="How vectors are searched: auto, flat, hnsw, ...")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step of the extractor.")] = 8,
) -> None:
    """Measure how often the right place is among the first N."""
    from vpr_dhe.candidates import VerifiedIndex
    from vpr_dhe.evaluation.runs import evaluate, index_database
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.localizer import Localizer, build_verifier
    from vpr_dhe.places import Protocol, read_places
    from vpr_dhe.report.formats import recall_table, write_results

    require_writable(out)
    ranks = parse_ranks(recall_at)
    dataset = read_places(data, layout, Protocol(split, radius_m, frame_tolerance))
    extractor = load_extractor(model, pick_device(device))
    chosen = build_verifier(verifier, extractor)
    with TemporaryDirectory(prefix="vpr-dhe-") as folder:
        with progress_bar(len(dataset.database.records), "database", "image") as bar:
            index = index_database(
                dataset,
                extractor,
                Path(folder) / "index",
                batch_size=batch_size,
                progress=bar.update,
                codec=codec,
                index_type=index_type,
            )
        localizer = Localizer(VerifiedIndex(index, chosen), extractor, rerank=rerank)
        with progress_bar(len(dataset.queries.records), "queries", "image") as bar:
            result = evaluate(dataset, localizer, verifier, ranks=ranks, manifest=index.manifest, progress=bar.update)
    for image in result.unreadable:
        say_skipped(image.path, image.reason)
    print(recall_table(result))
    if out:
        write_results(result, out)
