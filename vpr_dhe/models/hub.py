"""Download cache of published models."""

import fcntl
import json
import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.errors import DownloadError, ModelError
from vpr_dhe.models.http_download import download, require_reachable, unwritable
from vpr_dhe.models.names import BUNDLED, SUFFIX
from vpr_dhe.models.published import PUBLISHED, Place, PublishedModel
from vpr_dhe.runtime.durable_files import write_durably
from vpr_dhe.runtime.user_cache import user_cache

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedModel:
    """Paths of a published model in the user cache."""

    model: PublishedModel

    @property
    def path(self) -> Path:
        """Path of the model file."""
        return user_cache("models") / f"{self.model.name}{SUFFIX}"

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint as published."""
        return self.downloads / self.model.file

    @property
    def downloads(self) -> Path:
        """Folder of downloads."""
        return user_cache("models") / "downloads" / self.model.name

    @property
    def record(self) -> Path:
        """Path of the record of the checkpoint that was used first: URL, size and SHA-256."""
        return user_cache("models") / f"{self.model.name}.json"


def cached(name: str) -> Path | None:
    """Path of the model file of a published model, if it is in the user cache."""
    model = PUBLISHED.get(name)
    try:
        path = None if model is None else CachedModel(model).path
    except FileNotFoundError:  # no home folder
        return None
    return path if path is not None and path.is_file() else None


def fetch(name: str) -> Path:
    """Return the path of the model file of a published model, after downloading and converting it if necessary.

    A download and a licence that restricts the use of the model are logged as warnings.

    Raises:
        DownloadError: if it cannot be downloaded or stored, or its checksum has changed since the first use.
        ModelError: if the file is not a checkpoint of its family.
    """
    model = PUBLISHED[name]
    try:
        place = CachedModel(model)
        if place.path.is_file():
            return place.path
        if model.place is Place.drive:
            place.path.parent.mkdir(parents=True, exist_ok=True)
            raise _by_hand(place)
        with _locked(place.downloads):
            if not place.path.is_file():  # another process may have downloaded it meanwhile
                _fetch(place)
    except OSError as error:
        raise unwritable(Path(error.filename or "the user's cache"), error) from error
    return place.path


def _fetch(place: CachedModel) -> None:
    model = place.model
    size = "" if model.megabytes is None else f" (about {model.megabytes} MB)"
    _log.warning("fetching %s%s once, from %s", model.name, size, model.url)
    try:
        checkpoint = _from_hub(place) if model.place is Place.hub else _from_release(place)
    except DownloadError as error:
        raise DownloadError(f"{model.name} could not be downloaded: {error}; {_without_download(place)}") from error
    found = _require_known(place, checkpoint)
    try:
        _convert(place, checkpoint)
    except ModelError:
        if place.downloads in checkpoint.parents:  # a page of a proxy, or damaged: the next run downloads it again
            checkpoint.unlink(missing_ok=True)
        raise
    if not place.record.is_file():
        document = {"url": model.url, "file": model.file, "bytes": checkpoint.stat().st_size, "sha256": found}
        write_durably(place.record.parent, place.record.name, json.dumps(document, indent=1).encode())


def _from_release(place: CachedModel) -> Path:
    if not place.checkpoint.is_file():
        download(place.model.url, place.checkpoint)
    return place.checkpoint


def _from_hub(place: CachedModel) -> Path:
    """Download by the client of the hub, which supports tokens and mirrors, or take the file from its cache."""
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars

    repository, file = place.model.repository, place.model.file
    downloaded = huggingface_hub.try_to_load_from_cache(repository, file)
    if isinstance(downloaded, str):
        return Path(downloaded)
    if not _log.isEnabledFor(logging.WARNING):  # `-q`
        disable_progress_bars()
    endpoint = os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT
    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        require_reachable(endpoint)  # the client would try again for half a minute
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, local_dir=place.downloads, endpoint=endpoint))
    except Exception as error:  # the client raises the errors of whichever HTTP library it is built on
        reason = textwrap.shorten(" ".join(str(error).split()), 160, placeholder="...")
        raise DownloadError(f"the hub's client failed ({type(error).__name__}: {reason})") from error


def _require_known(place: CachedModel, checkpoint: Path) -> str:
    """Compare the checksum of a checkpoint with that of the first use, if it was used before; returns it.

    Raises:
        DownloadError: if it differs; the checkpoint is then removed.
    """
    from vpr_dhe.models.exported_model import sha256_of

    found, model = sha256_of(checkpoint), place.model
    expected = json.loads(place.record.read_text())["sha256"] if place.record.is_file() else found
    if found != expected:
        if place.downloads in checkpoint.parents:  # and not in the hub's own cache
            checkpoint.unlink()
        raise DownloadError(
            f"{model.url} gave a file with the SHA-256 {found}, and at the first use it had {expected}; try again, and "
            f"if its authors have replaced it and you trust the new one, delete {place.record} first"
        )
    return found


def _convert(place: CachedModel, checkpoint: Path) -> None:
    """Convert a checkpoint to a model file."""
    from vpr_dhe.models.importers import import_checkpoints

    converted = import_checkpoints(place.model.family, [checkpoint])
    try:
        replace(converted, name=place.model.name).save(place.path)
    except OSError as error:
        raise DownloadError(f"{error}; make room there and try again") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock that lets one process at a time download a model."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for another process that fetches %s", folder.name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _by_hand(place: CachedModel) -> DownloadError:
    model = place.model
    file = model.file or "FILE"
    restriction = "" if model.restriction is None else f" ({model.restriction})"
    return DownloadError(
        f"{model.name} is published on Google Drive, which needs a browser: download {model.file or 'the checkpoint'} "
        f"from {model.url}{restriction}, then run `{_import_command(place, file)}` once, and "
        f"--model {model.name} works"
    )


def _without_download(place: CachedModel) -> str:
    """Message about alternatives to a download: bundled and cached models, and files from another machine."""
    on_disk = [name for name in PUBLISHED if cached(name) is not None]
    return (
        f"without a download these work: {', '.join([*BUNDLED, *on_disk])}; or get the file on another machine and "
        f"run `{_import_command(place, place.model.file)}`"
    )


def _import_command(place: CachedModel, file: str) -> str:
    quoted = f"'{file}'" if "(" in file else file
    return f"vpr-dhe import-weights {quoted} --kind {place.model.family} --out {place.path}"
