"""Web page for localizing a photo: three files, nothing loaded from elsewhere."""

from importlib.resources import files

from fastapi import APIRouter, Response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter()


@router.get("/")
async def page() -> Response:
    """The page itself."""
    return _asset("vpr_dhe.service", "page.html", "text/html")


@router.get("/page.js")
async def script() -> Response:
    """The script of the page."""
    return _asset("vpr_dhe.service", "page.js", "text/javascript")


@router.get("/style.css")
async def style() -> Response:
    """The style sheet, shared with reports."""
    return _asset("vpr_dhe.report.html", "style.css", "text/css")


def _asset(package: str, name: str, media_type: str) -> Response:
    content = (files(package) / "assets" / name).read_bytes()
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return Response(content, media_type=media_type, headers=headers)
