"""Resumable HTTP downloads; a file gets its final name when it is complete."""

import errno
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vpr_dhe.errors import DownloadError
from vpr_dhe.runtime.durable_files import sync_folder
from vpr_dhe.runtime.user_cache import CACHE_VARIABLE

PART_SUFFIX = ".part"
_FACTS_SUFFIX = ".part.json"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_PAUSE_S = 1.0
_MAX_FAILURES = 5
"""Maximum number of consecutive attempts that receive no data."""

_log = logging.getLogger(__name__)


class _CutError(Exception):
    """Interrupted transfer that may succeed on retry."""


class _UnreachableError(_CutError):
    """Unreachable server; retried only after a download has begun."""


@dataclass(frozen=True)
class _Part:
    """Incomplete file, and a file of facts that identify the version on the server."""

    path: Path
    url: str

    @property
    def facts_path(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(PART_SUFFIX) + _FACTS_SUFFIX)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def facts(self) -> dict[str, Any]:
        """Facts about the version that the part belongs to; empty if the part is of another URL."""
        with suppress(OSError, ValueError):
            facts = json.loads(self.facts_path.read_text())
            if facts["url"] == self.url:
                return facts
        return {}

    def begin(self, headers: Message, total: int | None) -> None:
        """Store the version that the part belongs to: ETag or date, and number of bytes."""
        tag = headers.get("ETag", "")
        validator = headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        self.facts_path.write_text(json.dumps({"url": self.url, "validator": validator, "total": total}))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.facts_path.unlink(missing_ok=True)


def download(url: str, path: Path) -> None:
    """Download a file; after an interruption, the next call resumes.

    Shows a progress bar on stderr, if that is a terminal.

    Raises:
        DownloadError: if the server is unreachable or refuses, the connection is lost repeatedly, or the disk is full.
    """
    part = _Part(path.with_name(path.name + PART_SUFFIX), url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _complete(part)
        part.path.replace(path)
        part.facts_path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path.parent, error) from error


def require_reachable(url: str) -> None:
    """Check that a server answers, with any status.

    Raises:
        DownloadError: if it does not.
    """
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
    except ValueError as error:
        raise DownloadError(f"{url!r} is no address; expected one such as https://huggingface.co") from error
    except (http.client.HTTPException, OSError) as error:
        raise DownloadError(f"{url} cannot be reached ({_reason(error)})") from error


def unwritable(folder: Path, error: OSError) -> DownloadError:
    """Error for a cache folder that cannot be written to."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            f"the disk of {folder} is full; make room there, or set {CACHE_VARIABLE} to a folder on another disk"
        )
    return DownloadError(
        f"cannot write to {folder} ({error.strerror or error}); set {CACHE_VARIABLE} to a folder that you may write to"
    )


def _complete(part: _Part) -> None:
    """Transfer until the part is complete."""
    failures, begun = 0, False
    while True:
        before = part.size
        try:
            return _transfer(part)
        except _CutError as error:
            progressed = part.size > before
            failures, begun = 0 if progressed else failures + 1, begun or progressed
            if isinstance(error, _UnreachableError) and not begun:
                raise DownloadError(f"{part.url} cannot be reached ({error})") from error
            if failures >= _MAX_FAILURES:
                raise DownloadError(
                    f"the download of {part.url} failed {failures} times in a row ({error}); try again to "
                    f"resume it from byte {part.size}"
                ) from error
            _log.info("%s: %s; resuming from byte %d", part.url, error, part.size)
            time.sleep(_PAUSE_S * 2**failures)


def _transfer(part: _Part) -> None:
    """Request the rest of the part, and append it."""
    have, facts = part.size, part.facts()
    if have and not facts:
        part.discard()
        have = 0
    if have and have == facts["total"]:
        return
    with _open(part, have, facts.get("validator")) as response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if resumed and (_first_byte(response.headers) != have or total != facts["total"]):
            part.discard()
            raise _CutError("the file at the server is another one now")
        _require_room(part.path.parent, total, start)
        part.begin(response.headers, total)
        with part.path.open("ab" if resumed else "wb") as file, _bar(part, start, total) as bar:
            while chunk := _read(response):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.size < total:
        raise _CutError(f"the connection ended after {part.size} of {total} bytes")


def _open(part: _Part, have: int, validator: str | None) -> Any:
    """Request a file from a byte on; if the file has changed, the server sends it from the beginning."""
    headers = {"User-Agent": f"vpr-dhe/{version('vpr-dhe')}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        headers |= {"If-Range": validator} if validator else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(part.url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.discard()
            raise _CutError("the file at the server is another one now") from error
        if error.code == http.client.TOO_MANY_REQUESTS or error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise _CutError(f"the server answered {error.code} {error.reason}") from error
        raise DownloadError(f"the server answered {error.code} {error.reason} for {part.url}") from error
    except (http.client.HTTPException, OSError) as error:
        raise _UnreachableError(_reason(error)) from error


def _read(response: Any) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(_reason(error)) from error


def _first_byte(headers: Message) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _require_room(folder: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - have > free:
        raise DownloadError(
            f"the download takes {(total - have) / 1e6:.0f} MB and the disk of {folder} has {free / 1e6:.0f} MB left; "
            f"make room there, or set {CACHE_VARIABLE} to a folder on another disk"
        )


def _bar(part: _Part, start: int, total: int | None) -> Any:
    from tqdm import tqdm

    # `-q` silences warnings as well; None shows the bar only on terminals.
    disable = None if _log.isEnabledFor(logging.WARNING) else True
    name = part.path.name.removesuffix(PART_SUFFIX)
    return tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=disable, leave=False)


def _reason(error: BaseException) -> str:
    """Short reason of a failed connection."""
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
