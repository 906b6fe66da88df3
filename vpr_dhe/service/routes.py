"""HTTP routes of a service."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vpr_dhe.errors import ImageError
from vpr_dhe.records import GeoPosition
from vpr_dhe.report.tables.answer_documents import answer_document
from vpr_dhe.report.tables.answers import Answer
from vpr_dhe.service.add_images import NewImage
from vpr_dhe.service.map_data import inliers_document
from vpr_dhe.service.place_service import PlaceService
from vpr_dhe.service.uploads import read_uploads

_SIDE_PX, _MAX_SIDE_PX = 320, 1600
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
        },
    }
}

router = APIRouter()


class Document(JSONResponse):
    """JSON response in the command line's encoding, valid for any bytes in file names."""

    def render(self, content: Any) -> bytes:
        """Encode in ASCII."""
        return json.dumps(content).encode()


def _service(request: Request) -> PlaceService:
    return request.app.state.service


Service = Annotated[PlaceService, Depends(_service)]


def _may_write(request: Request) -> None:
    """Require the service's token.

    Raises:
        HTTPException: 403 if the service accepts no images; 401 if the token is missing or wrong.
    """
    token: str | None = request.app.state.token
    if token is None:
        raise HTTPException(403, "this service accepts no images; start it with VPR_DHE_TOKEN set to a secret")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        wanted = "a token is needed: send the header Authorization: Bearer TOKEN"
        raise HTTPException(401, wanted, {"WWW-Authenticate": "Bearer"})


@asynccontextmanager
async def _in_time(service: PlaceService) -> AsyncIterator[None]:
    timeout_s = service.limits.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise HTTPException(503, f"no answer within {timeout_s:g} s; try again when the load is lower") from None


@router.post("/v1/localize", openapi_extra=_BODY)
async def localize(
    request: Request,
    service: Service,
    top_k: Annotated[int, Query(ge=1, le=100)] = 5,
    name: str = "",
    min_probability: Annotated[float | None, Query(ge=0, le=1)] = None,
    inlier_points: bool = False,
    near: Annotated[str | None, Query(description="LAT,LON in degrees, or X,Y for a map in local metres")] = None,
    within_m: float | None = None,
) -> Response:
    """Localize one image; the response is that of `vpr-dhe query --format json` for one query.

    With `inlier_points`, matches also have the inliers and the image size, for drawing. With `near` and `within_m`,
    only images within that distance of a position are searched.
    """
    if (near is None) != (within_m is None):
        raise HTTPException(422, "near and within_m belong together; give both or neither")
    with service.admission.admitted():
        uploads = await read_uploads(request, name, service.limits.timeout_s)
        if len(uploads) > 1:
            raise HTTPException(422, f"{len(uploads)} images; send one per request")
        async with _in_time(service):
            circle = None if near is None or within_m is None else await service.circle(near, within_m)
            answer = await service.localize(uploads[0].content, top_k, min_probability, circle)
    document = answer_document(Answer(uploads[0].name, answer))
    if inlier_points:
        snapshot = service.index.snapshot
        document["matches"] = [
            match | inliers_document(snapshot, found)
            for match, found in zip(document["matches"], answer.matches, strict=True)
        ]
    return Document(document)


@router.post("/v1/images", openapi_extra=_BODY, dependencies=[Depends(_may_write)])
async def add_images(
    request: Request,
    service: Service,
    name: str = "",
    latitude: Annotated[float | None, Query(ge=-90, le=90)] = None,
    longitude: Annotated[float | None, Query(ge=-180, le=180)] = None,
) -> Response:
    """Add images to the index; acknowledged images are durable."""
    if (latitude is None) != (longitude is None):
        raise HTTPException(422, "latitude and longitude belong together; give both or neither")
    with service.admission.admitted():
        uploads = await read_uploads(request, name, service.limits.timeout_s)
        position = None if latitude is None or longitude is None else GeoPosition(latitude, longitude)
        if position and len(uploads) > 1:
            raise HTTPException(422, f"one position for {len(uploads)} images; send one image per request")
        async with _in_time(service):
            images = [NewImage(upload.name, upload.content, position) for upload in uploads]
            additions = await service.add(images)
    document = {
        "images": [{"image": image, "id": id} for image, id in additions.ids.items()],
        "added": additions.added,
    }
    return Document(document, 201 if additions.added else 200)


@router.get("/v1/thumbnail")
async def thumbnail(
    service: Service, image: str, side: Annotated[int, Query(ge=16, le=_MAX_SIDE_PX)] = _SIDE_PX
) -> Response:
    """Database image, by its name in answers, as a JPEG of at most `side` pixels."""
    with service.admission.admitted():
        try:
            content = await service.thumbnail(image, side)
        except ImageError as error:
            raise HTTPException(404, f"the file of image {image!r} cannot be read") from error
    if content is None:
        raise HTTPException(404, f"the index holds no image {image!r}")
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


@router.get("/v1/positions")
async def positions(service: Service) -> Response:
    """Positions of indexed images for a map, evenly sampled."""
    with service.admission.admitted():
        return Document(await service.positions())


@router.get("/v1/index")
async def index_info(request: Request, service: Service) -> Response:
    """Size, model, verifier and limits of the service."""
    manifest, limits = service.index.manifest, service.limits
    return Document(
        {
            "index": PurePath(service.index.folder).name,
            "images": manifest.count,
            "model": manifest.spec.model,
            "verifier": service.verifier,
            "rerank": service.localizer.rerank if service.localizer.database.pinned().verifies else 0,
            "calibration": service.localizer.calibration_source,
            "writable": request.app.state.token is not None,
            "limits": {"body_bytes": limits.body_bytes, "pixels": limits.pixels, "queue": limits.queue},
        }
    )


@router.get("/healthz")
async def health() -> Response:
    """Liveness: whether the process answers."""
    return Document({"status": "alive"})


@router.get("/readyz")
async def readiness(service: Service) -> Response:
    """Readiness: whether it accepts requests."""
    if service.admission.closed:
        raise HTTPException(503, "the service is stopping")
    return Document({"status": "ready"})


@router.get("/metrics")
async def metrics(service: Service) -> Response:
    """Counters for Prometheus."""
    return Response(service.metrics.text(), media_type=_METRICS_TYPE)
