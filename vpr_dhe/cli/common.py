"""What commands share: progress, messages, checks of options."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from tqdm import tqdm

    from vpr_dhe.localization.localizer import Localizer


# Vectors that FAISS needs about half a minute for.
_LONG_TO_BUILD = 100_000


class DocumentFormat(StrEnum):
    """How one result is printed."""

    table = "table"
    json = "json"


def progress_bar(total: int, description: str, unit: str) -> "tqdm":
    """A progress bar on stderr; silent where stderr is not a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=unit, disable=None, smoothing=0.1)


def say_skipped(path: str, reason: str) -> None:
    """One line on stderr for an image that could not be read."""
    print(f"skipped {path}: {reason}", file=sys.stderr)


def say(sentence: str) -> None:
    """One line on stderr."""
    print(sentence, file=sys.stderr)


def say_building(kind: str, vectors: int) -> None:
    """One line on stderr before a FAISS file is built, where that takes a while."""
    if vectors >= _LONG_TO_BUILD:
        print(f"building {kind} over {vectors:,} images, which takes minutes", file=sys.stderr)


@contextmanager
def stages(unit: str = "image") -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Progress bars one after the other: each call ends the bar before it and starts the next."""
    with ExitStack() as stack:

        def start(description: str, total: int) -> Callable[[int], object]:
            stack.close()
            return stack.enter_context(progress_bar(total, description, unit)).update

        yield start


def require_writable(path: Path | None) -> None:
    """Find out before the work whether its results can be written."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        found = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise BadInputError(f"{path} {found}; give the name of a file in an existing folder")


def sink_of(out: Path | None) -> AbstractContextManager[TextIO]:
    """Where results go: the file of --out, or stdout."""
    # A file name may hold bytes that are no UTF-8; they pass through as they are.
    return out.open("w", encoding="utf-8", errors="surrogateescape") if out else nullcontext(sys.stdout)


def require_folder(folder: Path, option: str) -> None:
    """Make a folder that something is to be kept in, or find out before the work that this is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{option}: folder {folder} cannot be made ({error.strerror}); give another") from error
    if not os.access(folder, os.W_OK):
        raise BadInputError(f"{option}: nothing can be written into {folder}; give another folder")


def say_calibration(localizer: "Localizer") -> None:
    """One line on stderr where an index's calibration cannot be used, or is of a much smaller index."""
    if localizer.calibration_fault:
        say(f"answers have no probabilities: {localizer.calibration_fault}")
    calibration, images = localizer.calibration, len(localizer.database.image_ids())
    if calibration and calibration.is_outgrown(images):
        say(
            f"probabilities may be too high: the calibration is of {calibration.images} images, and there are {images} "
            "now; run `vpr-dhe calibrate` again"
        )


def cache_folder(choice: str, purpose: str) -> Path | None:
    """The folder where --cache keeps what serves a purpose: in the user's cache, or another; None keeps nothing."""
    if choice == "none":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "vpr-dhe" / purpose if choice == AUTO else Path(choice)
    require_folder(folder, "--cache")
    return folder


def parse_names(given: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or separated by commas, each once, in the order given."""
    return tuple(dict.fromkeys(name.strip() for text in given for name in text.split(",") if name.strip()))


def parse_ranks(text: str) -> tuple[int, ...]:
    """Read `1,5,10` as ascending ranks."""
    try:
        ranks = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise BadInputError(f"--recall-at is {text!r}; expected whole numbers such as 1,5,10,20") from error
    if ranks[0] < 1:
        raise BadInputError(f"--recall-at is {text!r}; ranks start at 1")
    return tuple(ranks)
