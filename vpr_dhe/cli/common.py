"""What commands share: devices, progress, checks of options."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, TextIO, TypeAlias

import typer

from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from vpr_dhe.localization.localizer import Localizer


WeightsOption: TypeAlias = Annotated[
    list[Path] | None, typer.Option(help="Network of a verifier that has one of its own; may be given for each.")
]
# Vectors that FAISS needs about half a minute for.
_LONG_TO_BUILD = 100_000


class Device(StrEnum):
    """Where networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Runtime(StrEnum):
    """What runs the networks of a model."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"


class Precision(StrEnum):
    """Of a network's products."""

    fp32 = "fp32"
    bf16 = "bf16"


RuntimeOption: TypeAlias = Annotated[
    Runtime, typer.Option(help="Insist on torch, or on onnx for a folder of `vpr-dhe export`; auto is what fits.")
]


class DocumentFormat(StrEnum):
    """How one result is printed."""

    table = "table"
    json = "json"


def pick_device(device: Device) -> str:
    """Choose the device; only the command line does so, the library is told."""
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise BadInputError("--device cuda was asked for, but torch sees no CUDA device; use --device cpu")
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.value


def require_runtime(runtime: Runtime, model: str) -> None:
    """Raise where a model is not for the runtime that was asked for."""
    from vpr_dhe.models.catalogue import is_export

    if runtime is Runtime.onnx and not is_export(model):
        raise BadInputError(
            f"--runtime onnx runs what `vpr-dhe export` wrote, and {model} is no such folder; run "
            f"`vpr-dhe export {model} --out FOLDER`, and give --model FOLDER"
        )
    if runtime is Runtime.torch and is_export(model):
        raise BadInputError(
            f"--runtime torch was asked for, and {model} is an export to ONNX; give the model that it was made of by "
            "--model"
        )


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


def say_slow(verifier: str, rerank: int) -> None:
    """One line on stderr before a method that takes seconds per candidate is asked for many."""
    from vpr_dhe.verification.estimators.registry import METHODS

    usual = METHODS[verifier].recommended_rerank if verifier in METHODS else None
    if usual is not None and rerank > usual:
        say(f"{verifier} takes seconds per candidate, and --rerank is {rerank}; about {usual} are usual")


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


@contextmanager
def kept_folder(choice: str, purpose: str) -> Iterator[Path]:
    """Where --cache keeps what serves a purpose: in the user's cache, in a folder, or until the command ends."""
    if choice == "none":
        with TemporaryDirectory(prefix="vpr-dhe-") as folder:
            yield Path(folder)
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "vpr-dhe" / purpose if choice == "auto" else Path(choice)
    require_folder(folder, "--cache")
    say(f"features of {purpose} are kept in {folder} (--cache)")
    yield folder


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
