"""Web page for localizing an image, without external resources."""

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
    """The script of the form."""
    return _asset("vpr_dhe.service", "page.js", "text/javascript")


@router.get("/answer.js")
async def answer_script() -> Response:
    """The script that shows an answer."""
    return _asset("vpr_dhe.service", "answer.js", "text/javascript")


@router.get("/map.js")
async def map_script() -> Response:
    """The script that draws the map."""
    return _asset("vpr_dhe.service", "map.js", "text/javascript")


@router.get("/style.css")
async def style() -> Response:
    """The style sheet, shared with reports."""
    return _asset("vpr_dhe.report.html", "style.css", "text/css")


@router.get("/page.css")
async def page_style() -> Response:
    """The style sheet of the page alone."""
    return _asset("vpr_dhe.service", "page.css", "text/css")


def _asset(package: str, name: str, media_type: str) -> Response:
    content = (files(package) / "assets" / name).read_bytes()
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return Response(content, media_type=media_type, headers=headers)
