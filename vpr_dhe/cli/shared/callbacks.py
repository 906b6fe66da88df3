"""Checks of names and paths as callbacks of options, run before anything slow is imported.

None stands for an option that was not given.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.paths import require_manifest
from vpr_dhe.models.names import require_model
from vpr_dhe.models.published import PUBLISHED_NETWORKS
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.runtime.text import did_you_mean
from vpr_dhe.verification.names import require_aligner, require_verifier


def existing_index(folder: Path) -> Path:
    """Return the folder of an index.

    Raises:
        IndexFormatError: if it holds no index.
    """
    require_manifest(folder)
    return folder


def existing_indexes(folders: list[Path] | None) -> list[Path] | None:
    """Return the folders of indexes.

    Raises:
        IndexFormatError: if one holds no index.
    """
    for folder in folders or ():
        require_manifest(folder)
    return folders


def known_model(name: str | None) -> str | None:
    """Return the name of a model.

    Raises:
        ModelError: if there is no such model.
    """
    if name is not None:
        require_model(name)
    return name


def known_model_or_network(name: str | None) -> str | None:
    """Return the name of a model, or of a published network that estimates homographies.

    Raises:
        ModelError: if there is neither.
    """
    return name if name in PUBLISHED_NETWORKS else known_model(name)


def known_verifier(name: str) -> str:
    """Return the name of a verifier.

    Raises:
        VerifierError: if there is no such verifier.
    """
    require_verifier(name)
    return name


def known_aligner(name: str) -> str:
    """Return the name of a method of `align`.

    Raises:
        VerifierError: if there is no such method.
    """
    require_aligner(name)
    return name


def known_aligners(texts: list[str] | None) -> list[str] | None:
    """Return names of methods of `align`, separated by commas.

    Raises:
        VerifierError: if there is no such method.
    """
    for name in parse_names(texts or ()):
        require_aligner(name)
    return texts


def known_verifiers(texts: list[str] | None) -> list[str] | None:
    """Return names of verifiers, separated by commas.

    Raises:
        VerifierError: if there is no such verifier.
    """
    for name in parse_names(texts or ()):
        require_verifier(name)
    return texts


def one_of(what: str, names: Sequence[str], others: Sequence[str] = ()) -> Callable[[str | None], str | None]:
    """Make a check that a value is one of some names, or of others that are told of elsewhere.

    The check raises BadInputError, with the nearest name.
    """
    *first, last = names

    def check(value: str | None) -> str | None:
        if value is not None and value not in (*names, *others):
            expected = f"{', '.join(first)} or {last}"
            raise BadInputError(f"unknown {what} {value!r}{did_you_mean(value, names)}; expected {expected}")
        return value

    return check


def existing_file(path: Path | None) -> Path | None:
    """Return the path of a file or folder.

    Raises:
        BadInputError: if there is none.
    """
    if path is not None:
        _require(path, "give the path of a file")
    return path


def existing_files(paths: list[Path] | None) -> list[Path] | None:
    """Return the paths of files or folders.

    Raises:
        BadInputError: if one does not exist.
    """
    for path in paths or ():
        _require(path, "give files that exist")
    return paths


def existing_photos(paths: list[Path] | None) -> list[Path] | None:
    """Return the paths of photos or folders of photos.

    Raises:
        BadInputError: if one does not exist.
    """
    for path in paths or ():
        _require(path, "give images or folders of images", "query ")
    return paths


def existing_folder(path: Path | None) -> Path | None:
    """Return the path of a folder of images.

    Raises:
        BadInputError: if there is none.
    """
    if path is not None:
        _require(path, "expected a folder of images", "folder ")
    return path


def existing_folders(paths: list[Path] | None) -> list[Path] | None:
    """Return the paths of folders of images.

    Raises:
        BadInputError: if one does not exist.
    """
    for path in paths or ():
        existing_folder(path)
    return paths


def existing_data(path: Path | None) -> Path | None:
    """Return the path of a data set.

    Raises:
        BadInputError: if there is none.
    """
    if path is not None:
        _require(path, "expected the folder of a data set", "data set folder ")
    return path


def existing_training_data(names: list[str]) -> list[str]:
    """Return the folders of training data, or the name of generated towns.

    Raises:
        BadInputError: if a folder does not exist.
    """
    for name in names:
        if name != SYNTHETIC_TOWN:
            _require(Path(name), f"expected a folder of training data, or {SYNTHETIC_TOWN}", "folder ")
    return names


def writable_file(path: Path | None) -> Path | None:
    """Return the path of a file to write.

    Raises:
        BadInputError: if it is a folder, lies in none, or may not be written.
    """
    require_writable(path)
    return path


def require_writable(path: Path | None) -> None:
    """Check before the work that its results can be written."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        found = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise BadInputError(f"{path} {found}; give the name of a file in an existing folder")
    if not (os.access(path, os.W_OK) if path.exists() else os.access(path.parent, os.W_OK | os.X_OK)):
        raise BadInputError(f"{path} is not writable; give another file")


def parse_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Split names at commas, and keep the first of equal ones."""
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))


def _require(path: Path, expected: str, what: str = "") -> None:
    if path.exists():
        return
    try:
        siblings = [other.name for other in path.parent.iterdir()]
    except OSError:
        siblings = []
    raise BadInputError(f"{what}{path} does not exist{did_you_mean(path.name, siblings)}; {expected}")
