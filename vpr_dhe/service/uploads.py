"""Image files in the body of a request: raw, or as parts of a form."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_FIELD = "image"
_MAX_FILES = 64


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
    """Read all files of a request; `name` is the name of a raw body.

    Raises:
        HTTPException: 408 if the body does not arrive in time; 413 if it is too large; 422 if it holds no file.
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
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        content = await request.body()
        return [Upload(name, content)] if content else []
    async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FILES) as form:
        files = [part for part in form.getlist(_FIELD) if isinstance(part, UploadFile)]
        return [Upload(file.filename or name, await file.read()) for file in files]
