"""Image files in the body of a request: raw, or as parts of a form."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass
from email.message import Message as Headers
from email.utils import collapse_rfc2231_value
from typing import Any, TypeAlias

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_FIELD = "image"
_FIELDS = (_FIELD, "file")
_MAX_FILES = 64
_DISPOSITION = "content-disposition"
_PLAIN_NAME = re.compile(r";\s*filename\s*=", re.IGNORECASE)
# First bytes of JSON and of data URLs.
_TEXT_MARKS = (b"{", b"[", b'"', b"data:")
_MARK_BYTES = 64


@dataclass(frozen=True)
class Upload:
    """One uploaded file; `name` comes from the form, or from the caller for a raw body."""

    name: str
    content: bytes


class BoundedBody:
    """Middleware that refuses bodies above a size, by their announced length or as they arrive."""

    def __init__(self, app: App, limit_bytes: int) -> None:
        self._app, self._limit_bytes = app, limit_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, counting the bytes of its body."""
        length = dict(scope.get("headers", ())).get(b"content-length", b"0")
        announced = int(length) if length.isdigit() else 0
        received = 0

        async def bounded() -> Message:
            nonlocal received
            if announced > self._limit_bytes:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                raise self._too_large()
            return message

        await self._app(scope, bounded if scope["type"] == "http" else receive, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._limit_bytes:,} bytes; scale the image down")


async def read_uploads(request: Request, name: str, timeout_s: float) -> list[Upload]:
    """Read all files of a request; `name` is the name of a raw body and of files without one.

    In a form, files are the parts named `image` or, if there are none, `file`.

    Raises:
        HTTPException: 400 if the form is damaged; 408 if the body does not arrive in time; 413 if it is too large; 422
            if it holds no file.
    """
    try:
        async with asyncio.timeout(timeout_s):
            uploads = await _read(request, name)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {timeout_s:g} s") from None
    if not uploads:
        raise HTTPException(422, f"the body holds no image; send its bytes, or a form with a file {_FIELD!r}")
    return uploads


async def _read(request: Request, name: str) -> list[Upload]:
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/form-data"):
        return await _read_form(request, name)
    content = await request.body()
    if content[:_MARK_BYTES].lstrip().startswith(_TEXT_MARKS):
        raise HTTPException(422, f"the body is text, not an image; send the bytes of a file, or a form with {_FIELD!r}")
    named = name or file_name(request.headers.get(_DISPOSITION, "")) or ""
    return [Upload(named, content)] if content else []


async def _read_form(request: Request, name: str) -> list[Upload]:
    async with aclosing(request.stream()) as stream:
        try:
            form = await _FormParser(request.headers, stream, max_files=_MAX_FILES, max_fields=_MAX_FILES).parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from None
    try:
        found = ([part for part in form.getlist(field) if isinstance(part, UploadFile)] for field in _FIELDS)
        files = next(filter(None, found), [])
        return [Upload(file.filename or name, await file.read()) for file in files]
    finally:
        await form.close()


class _FormParser(MultiPartParser):
    """Parser of forms that accepts `filename*` as file name, and treats all parts named `image` as files.

    Some versions of Python's urllib3 write non-ASCII names as `filename*`, although RFC 7578 forbids it in forms; other
    clients send files without a name.
    """

    def on_headers_finished(self) -> None:
        """Complete the headers of a part before they are read."""
        part = self._current_part
        if part.content_disposition is not None:
            part.content_disposition = with_file_name(part.content_disposition)
        super().on_headers_finished()


def with_file_name(disposition: bytes) -> bytes:
    """Add a plain file name to a header Content-Disposition that has only an extended one, or none for an image."""
    text = disposition.decode("latin-1")
    if _PLAIN_NAME.search(text):
        return disposition
    found = file_name(text)
    if found is None and _parameter(text, "name") != _FIELD:
        return disposition
    quoted = (found or "").replace("\\", "\\\\").replace('"', '\\"')
    return disposition + f'; filename="{quoted}"'.encode()


def file_name(disposition: str) -> str | None:
    """File name in a header Content-Disposition, also as `filename*` or in numbered pieces (RFC 2231, RFC 5987)."""
    found = _parameter(disposition, "filename")
    return None if found is None else collapse_rfc2231_value(found).strip()


def _parameter(disposition: str, name: str) -> str | tuple[str | None, str | None, str] | None:
    header = Headers()
    header[_DISPOSITION] = disposition
    try:
        return header.get_param(name, header=_DISPOSITION)
    except (TypeError, ValueError):  # the parser's own errors, of pieces that contradict each other
        return None
