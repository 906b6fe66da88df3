"""ASGI application of a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vpr_dhe.errors import BadInputError, IndexBusyError, IndexedImagesMissingError, IndexFormatError, VprDheError
from vpr_dhe.service.metrics import Metrics
from vpr_dhe.service.page import router as page
from vpr_dhe.service.place_service import PlaceService
from vpr_dhe.service.routes import Document, router
from vpr_dhe.service.uploads import App, BoundedBody, Message, Receive, Send

_RETRY = {"Retry-After": "1"}


def build_app(service: PlaceService, token: str | None) -> FastAPI:
    """Build the application of a service; without a token it accepts no images."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    # FastAPI's documentation pages load scripts from a CDN; the schema is at /openapi.json.
    app = FastAPI(title="vpr-dhe", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.token = service, token
    app.include_router(router)
    app.include_router(page, include_in_schema=False)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(VprDheError, _failed)
    app.add_exception_handler(OSError, _failed_to_store)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(BoundedBody, limit_bytes=service.limits.body_bytes)
    app.add_middleware(_Counted, metrics=service.metrics)
    return app


class _Counted:
    """Middleware that counts responses by route and status."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on and count its response."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            if scope["type"] == "http":
                # Unknown paths share one label, since their number is unbounded.
                self._metrics.count(getattr(scope.get("route"), "path", "other"), status)


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return Document({"error": reason}, status, headers)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, dict(error.headers or {}))


def _misused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _error(422, "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()))


def _gone(_: Request, __: Exception) -> Response:
    return _error(400, "the connection was closed before the whole body had arrived")


def _failed(_: Request, error: Exception) -> Response:
    reason = " ".join(str(error).split())
    if isinstance(error, IndexBusyError | IndexFormatError | IndexedImagesMissingError):
        return _error(503, reason, _RETRY)
    return _error(422 if isinstance(error, BadInputError) else 500, reason)


def _failed_to_store(_: Request, error: Exception) -> Response:
    return _error(503, f"the server's storage fails ({error})")


def _broken(_: Request, __: Exception) -> Response:
    # The server writes the traceback to stderr.
    return _error(500, "internal error of the service; see its log")
