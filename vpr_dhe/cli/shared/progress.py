"""Progress bars, messages on stderr, and parsing of ranks and formats that commands share."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from vpr_dhe.cli.shared.messages import is_quiet
from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.text import counted, one_line
from vpr_dhe.runtime.user_cache import user_cache

if TYPE_CHECKING:
    from tqdm import tqdm

    from vpr_dhe.images.listing import ImageListing
    from vpr_dhe.index.manifest import CodecInfo
    from vpr_dhe.localization.localizer import Localizer


# FAISS needs about half a minute for this many vectors.
_MIN_SLOW_BUILD = 100_000


class DocumentFormat(StrEnum):
    """Output formats of one result."""

    table = "table"
    json = "json"


FormatChoice = TypeVar("FormatChoice", bound=StrEnum)
_ENDINGS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"} | {
    f".{format}": format for format in ("geojson", "gpx", "tum", "g2o")
}
_PICTURES_AND_PAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".pdf", ".html"})


def chosen_format(given: FormatChoice | None, out: Path | None, default: FormatChoice) -> FormatChoice:
    """Return the format that was given, or that of the output's ending, or the default.

    Raises:
        BadInputError: if the ending is that of a picture or page, which the output is not.
    """
    if given is not None:
        return given
    suffix = "" if out is None else out.suffix.lower()
    if suffix in _PICTURES_AND_PAGES:
        raise BadInputError(
            f"--out writes text, and {out} has the ending of a picture or page; give another ending, or --format for "
            "text of this name (pictures and reports have options of their own: see --help)"
        )
    ending = _ENDINGS.get(suffix, "")
    return next((one for one in type(default) if one.value == ending), default)


def progress_bar(total: int, description: str, unit: str, *, leave: bool = True) -> "tqdm":
    """Make a progress bar on stderr, silent with --quiet and unless stderr is a terminal.

    With `leave`, it stays when it is closed.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=unit, disable=is_quiet() or None, smoothing=0.1, leave=leave)


def report_skipped(path: str, reason: str) -> None:
    """Print one line on stderr about an unreadable image."""
    print_stderr(f"skipped {one_line(path)}: {reason}")


def report_blank(name: str) -> None:
    """Print one line on stderr about an image without texture."""
    print_stderr(f"{name} is blank: it has too little texture to match, so its place is unknown")


def report_listing(listing: "ImageListing") -> None:
    """Print one line each on stderr about what is left out of a folder, and what cannot be listed."""
    for note in listing.notes:
        print_stderr(note)


def print_stderr(message: str) -> None:
    """Print one line on stderr, above progress bars that are shown, unless --quiet was given."""
    if is_quiet():
        return
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr)


_BLANK_NAME = "names in a list of pairs cannot contain blanks, found {name!r}; use another --format"


def report_left_out(names: Sequence[str], *, written: bool, fault: str | None = None) -> None:
    """Print one line on stderr about pairs left out of a list, by the names that it cannot hold.

    `fault` says why, with `{name}`; by default, names have blanks.

    Raises:
        BadInputError: if nothing else was written.
    """
    if not names:
        return
    fault = (fault or _BLANK_NAME).format(name=names[0])
    if not written:
        raise BadInputError(fault)
    print_stderr(f"left out {counted(len(names), 'pair')}: {fault}")


def report_codec(before: "CodecInfo | None", after: "CodecInfo | None") -> None:
    """Print one line on stderr about a codec that `auto` has just chosen, and what it measured."""
    from vpr_dhe.report.tables.codec import codec_summary

    if after is not None and after.trials is not None and after != before:
        print_stderr(codec_summary(after, after.trials))


def report_building(kind: str, vectors: int) -> None:
    """Print one line on stderr before the slow build of a FAISS file."""
    if vectors >= _MIN_SLOW_BUILD:
        print_stderr(f"building {kind} over {vectors:,} images, which takes minutes")


@contextmanager
def progress_stages(unit: str = "image") -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Yield a function that ends the current progress bar and starts the next."""
    with ExitStack() as stack:

        def start(description: str, total: int) -> Callable[[int], object]:
            stack.close()
            return stack.enter_context(progress_bar(total, description, unit)).update

        yield start


def open_output(out: Path | None) -> AbstractContextManager[TextIO]:
    """Open the file of --out, or stdout."""
    # File names need not be UTF-8; their bytes pass through unchanged.
    return out.open("w", encoding="utf-8", errors="surrogateescape") if out else nullcontext(sys.stdout)


def print_result(text: str, out: Path | None) -> None:
    """Print a result to the file of --out, or to stdout."""
    with open_output(out) as file:
        print(text, file=file)


def require_folder(folder: Path, option: str) -> None:
    """Create a folder, or check before the work that an existing one can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{option}: folder {folder} cannot be made ({error.strerror}); give another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInputError(f"{option}: folder {folder} is not writable; give another")


def warn_of_calibration(localizer: "Localizer") -> None:
    """Print one line on stderr if an index's calibration is unusable, or was fitted on a much smaller index."""
    if localizer.calibration_fault:
        print_stderr(f"answers have no probabilities: {localizer.calibration_fault}")
    calibration, images = localizer.calibration, localizer.database.image_count
    if calibration and localizer.calibration_source == "index" and calibration.is_outgrown(images):
        print_stderr(
            f"probabilities may be too high: the calibration is of {calibration.images} images, and there are {images} "
            "now; run `vpr-dhe calibrate` again"
        )


def note_default_calibration(localizer: "Localizer") -> None:
    """Print one line on stderr if probabilities are not by a calibration of the index."""
    from vpr_dhe.localization.calibration.default import NOTE

    if localizer.calibration_source == "default":
        print_stderr(NOTE)


def cache_folder(choice: str, purpose: str) -> Path | None:
    """Return the folder that --cache chooses for a purpose, by default in the user's cache; None caches nothing.

    Where the user has no cache that can be written, as in a container with an unknown user, the default caches nothing,
    and one line on stderr says so.
    """
    if choice == "none":
        return None
    if choice != AUTO:
        require_folder(Path(choice), "--cache")
        return Path(choice)
    try:
        folder = user_cache(purpose)
        require_folder(folder, "--cache")
    except (BadInputError, FileNotFoundError) as error:  # FileNotFoundError: no home
        reason = str(error).removeprefix("--cache: ").removesuffix("; give another")
        print_stderr(f"nothing is cached: {reason}; choose a folder with --cache FOLDER")
        return None
    return folder


def checked_ranks(text: str) -> str:
    """Return `1,5,10` unchanged if it is ranks."""
    parse_ranks(text)
    return text


def parse_ranks(text: str) -> tuple[int, ...]:
    """Read `1,5,10` as ascending ranks."""
    try:
        ranks = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise BadInputError(f"--recall-at is {text!r}; expected whole numbers such as 1,5,10,20") from error
    if ranks[0] < 1:
        raise BadInputError(f"--recall-at is {text!r}; ranks start at 1")
    return tuple(ranks)
