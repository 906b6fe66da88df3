"""Time to check that a large index already contains all images of a folder, as in a second `vpr-dhe index`.

    python benchmarks/resume.py --images 1000000 --folder FOLDER

The index is made up, as in `growing.py`; its images are empty files (links to a few, to be made fast), of the size and
time that the index knows. Times are of the processor, in one run. Writes `benchmarks/results/resume.md` and
`resume.json`.
"""

import argparse
import os
import resource
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import TypeVar

from growing import BlankExtractor, made_up_index, made_up_path
from measuring import RESULTS, table, write_result

from vpr_dhe.datasets.standard import split_of
from vpr_dhe.images.listing import survey_images
from vpr_dhe.index.place_index import PlaceIndex

Result = TypeVar("Result")
# Below what file systems allow.
_LINKS = 1000


def write_photos(folder: Path, images: int) -> None:
    """Write the files of a made-up index, all of size 0 and time 0."""
    first = ""
    for id in range(1, images):
        path = f"{folder}/{made_up_path(id)}"
        if id == 1 or id % _LINKS == 0:
            os.makedirs(os.path.dirname(path))  # noqa: PTH103, PTH120 (a Path takes longer than the call)
            Path(path).touch()
            os.utime(path, ns=(0, 0))
            first = path
        else:
            os.link(first, path)


def measure(images: int, folder: Path | None = None) -> dict[str, float]:
    """Measure each step of a second run over a folder, in seconds of the processor."""
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Result]) -> Result:
        started = process_time()
        result = work()
        seconds[name] = process_time() - started
        return result

    with TemporaryDirectory(prefix="vpr-dhe-benchmark-", dir=folder) as temporary:
        place, photos = Path(temporary) / "index", Path(temporary) / "photos"
        photos.mkdir()
        made_up_index(place, photos, images)
        write_photos(photos, images)
        index = step("open", lambda: PlaceIndex.open(place))
        listing = step("list the folder", lambda: survey_images(photos))
        records = step("read positions of names", lambda: split_of(photos, listing.paths).records)
        report = step("compare with the index", lambda: index.add(records, BlankExtractor()))
        assert report.unchanged == images, report
        missing = step("find missing images", lambda: index.ids_missing_from(records, photos))
        assert not len(missing), missing
        step("find duplicates", index.duplicates)
    return seconds | {"in all": sum(seconds.values())}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where index and photos are made; they are deleted afterwards")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    seconds = measure(arguments.images, arguments.folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [(name, f"{taken:.2f}") for name, taken in seconds.items()]
    print(text := table([f"{arguments.images:,} images", "seconds"], rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "resume.md").write_text(f"{text}\n")
    document = {"images": arguments.images, "seconds": seconds, "peak_mb": peak_mb}
    write_result(arguments.out / "resume.json", "resume", document)


if __name__ == "__main__":
    main()
