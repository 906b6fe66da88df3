"""Queries over HTTP: right answers, and reasons where there is none."""

import asyncio
import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import PIL.Image

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.selection import SelectedCalibration
from vpr_dhe.records import MetricPosition
from vpr_dhe.report.tables.answer_documents import answer_document
from vpr_dhe.report.tables.answers import Answer


def expected(running, path: Path, top_k: int = 5) -> dict:
    return untimed(answer_document(Answer(path.name, running.localizer.localize(path, top_k=top_k))))


def untimed(document: dict) -> dict:
    """What does not change from run to run."""
    return json.loads(json.dumps(document | {"timing_ms": sorted(document["timing_ms"])}))


def photos(running) -> list[Path]:
    return [running.folder / record.path for record in read_split(running.folder).records]


def test_bytes_and_forms_get_the_answer_of_the_localizer(running):
    path = photos(running)[3]
    as_form = running.ask(lambda client: client.post("/v1/localize", files={"image": path.open("rb")}))
    as_bytes = running.post("/v1/localize", path.read_bytes(), params={"name": path.name, "top_k": 2})
    assert (as_form.status_code, as_bytes.status_code) == (200, 200)
    assert untimed(as_form.json()) == expected(running, path)
    assert untimed(as_bytes.json()) == expected(running, path, top_k=2)
    assert all(milliseconds >= 0 for milliseconds in as_form.json()["timing_ms"].values())


def test_an_unknown_place_is_told(running):
    photo = photos(running)[3].read_bytes()
    refused = running.post("/v1/localize", photo, params={"min_probability": 0.5})
    assert (refused.status_code, "vpr-dhe calibrate" in refused.json()["error"]) == (422, True)
    fault = BadInputError("calibrations/magsac.json was written by another version")
    running.localizer.selected_calibration = SelectedCalibration(fault=fault)
    refused = running.post("/v1/localize", photo, params={"min_probability": 0.5})
    assert (refused.status_code, "another version" in refused.json()["error"]) == (422, True)
    conditions = Conditions(running.extractor.spec.fingerprint, "magsac", 100)
    calibration = Calibration(conditions, 25.0, 0.5, 10, 5, 12, 0.0, {"margin": 0.0})
    running.localizer.selected_calibration = SelectedCalibration(calibration, "index")
    for least, known in ((0.4, True), (0.6, False)):
        answer = running.post("/v1/localize", photo, params={"min_probability": least}).json()
        assert (answer["known"], bool(answer["matches"]), answer["rejected"] is None) == (known, known, known)
        assert (answer["matches"] or [answer["rejected"]])[0]["probability"] == 0.5
    assert running.post("/v1/localize", photo, params={"min_probability": 2}).status_code == 422


def test_concurrent_queries_share_batches_and_get_the_answers_of_single_ones(running, thumbnail_extractor):
    paths = photos(running)
    alone = [expected(running, path) for path in paths]
    thumbnail_extractor.batches.clear()

    async def all_at_once(client: httpx.AsyncClient) -> list[dict]:
        asked = (client.post("/v1/localize", files={"image": (path.name, path.read_bytes())}) for path in paths)
        return [response.json() for response in await asyncio.gather(*asked)]

    together = running.limited(batch_wait_s=0.2).ask(all_at_once)
    assert [untimed(document) for document in together] == alone
    assert sum(thumbnail_extractor.batches) == len(paths)
    assert max(thumbnail_extractor.batches) > 1


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a huge image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def truncated_jpeg() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()[:5000]


BAD_BODIES = (
    (b"", 422, "the body holds no image"),
    (b"these are words", 422, "not an image"),
    (truncated_jpeg(), 422, "damaged or truncated"),
    (png_of_claimed_size(60_000, 60_000), 422, "more than the"),
    (png_of_claimed_size(8, 8), 422, "at least 16"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\nshowpage\n", 422, "is a vector format"),
    (bytes(2_000_001), 413, "larger than 2,000,000 bytes"),
)


def test_bad_bodies_are_refused_with_a_reason(running):
    async def talk(client: httpx.AsyncClient) -> None:
        for content, status, reason in BAD_BODIES:
            response = await client.post("/v1/localize", content=content)
            assert (response.status_code, list(response.json())) == (status, ["error"]), reason
            assert reason in response.json()["error"]

    running.limited(body_bytes=2_000_000).ask(talk)


def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(running):
    sent = []

    async def endless():
        while True:
            sent.append(1)
            yield bytes(100_000)

    async def talk(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/localize", content=endless())

    response = running.limited(body_bytes=1_000_000).ask(talk)
    assert (response.status_code, len(sent)) == (413, 11)


def test_a_body_that_does_not_arrive_is_not_waited_for(running):
    async def stalled():
        yield b"the first bytes"
        await asyncio.sleep(5)

    async def talk(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/localize", content=stalled())

    response = running.limited(timeout_s=0.2).ask(talk)
    assert (response.status_code, "did not arrive" in response.json()["error"]) == (408, True)


def test_misuse_is_explained(running):
    photo = photos(running)[0].read_bytes()
    for parameters in ({"top_k": "many"}, {"top_k": 0}, {"top_k": 101}):
        response = running.post("/v1/localize", photo, params=parameters)
        assert (response.status_code, "top_k" in response.json()["error"]) == (422, True)
    two = [("image", ("a.png", photo)), ("image", ("b.png", photo))]
    response = running.ask(lambda client: client.post("/v1/localize", files=two))
    assert (response.status_code, "2 images" in response.json()["error"]) == (422, True)
    response = running.ask(lambda client: client.post("/v1/localize", files={"photo": photo}))
    assert (response.status_code, "'image'" in response.json()["error"]) == (422, True)
    form = {"content-type": "multipart/form-data"}
    assert running.post("/v1/localize", b"no form", headers=form).json().keys() == {"error"}
    assert running.get("/v1/localize").json() == {"error": "Method Not Allowed"}
    assert running.get("/nowhere").json() == {"error": "Not Found"}


def test_one_too_many_is_told_to_come_back(running):
    running.limited(queue=2)
    photo = photos(running)[0].read_bytes()

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        running.extractor.gate.clear()
        waiting = [asyncio.create_task(client.post("/v1/localize", content=photo)) for _ in range(2)]
        async with asyncio.timeout(60):
            while running.service.admission.active < 2:
                await asyncio.sleep(0.01)
        refused = await client.post("/v1/localize", content=photo)
        metrics = await client.get("/metrics")
        running.extractor.gate.set()
        return [refused, metrics, *await asyncio.gather(*waiting)]

    refused, metrics, *answered = running.ask(talk)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "2 requests are being processed" in refused.json()["error"]
    assert "vpr_dhe_queue_requests 2.0" in metrics.text
    assert [response.status_code for response in answered] == [200, 200]


def test_an_answer_that_takes_too_long_is_given_up(running):
    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        running.extractor.gate.clear()
        late = await client.post("/v1/localize", content=photos(running)[0].read_bytes())
        running.extractor.gate.set()
        return [late, await client.post("/v1/localize", content=photos(running)[0].read_bytes())]

    late, next_one = running.limited(timeout_s=2.0).ask(talk)
    assert (late.status_code, "no answer within 2 s" in late.json()["error"]) == (503, True)
    assert next_one.status_code == 200


def test_a_stopping_service_answers_whom_it_let_in_and_nobody_else(running):
    photo = photos(running)[0].read_bytes()

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        running.extractor.gate.clear()
        inside = asyncio.create_task(client.post("/v1/localize", content=photo))
        async with asyncio.timeout(60):
            while not running.extractor.reached.is_set():
                await asyncio.sleep(0.01)
        running.service.admission.close()
        refused = [await client.post("/v1/localize", content=photo), await client.get("/readyz")]
        alive = await client.get("/healthz")
        running.extractor.gate.set()
        return [await inside, *refused, alive]

    answered, refused, not_ready, alive = running.ask(talk)
    assert [r.status_code for r in (answered, refused, not_ready, alive)] == [200, 503, 503, 200]
    assert "stopping" in refused.json()["error"]


def test_an_empty_index_says_so(running, tmp_path):
    index = PlaceIndex.create(tmp_path / "empty", running.extractor.spec, running.folder)
    running.localizer.database.index = index
    response = running.post("/v1/localize", photos(running)[0].read_bytes())
    assert (response.status_code, "holds no images" in response.json()["error"]) == (503, True)


def test_a_fault_of_the_program_is_no_traceback_to_the_caller(running, monkeypatch):
    monkeypatch.setattr(running.localizer, "localize_features", lambda *_, **__: 1 / 0)
    response = running.post("/v1/localize", photos(running)[0].read_bytes())
    assert (response.status_code, "see its log" in response.json()["error"]) == (500, True)
    assert "division" not in response.text


def test_metrics_tell_what_happened(running):
    async def talk(client: httpx.AsyncClient) -> str:
        await client.post("/v1/localize", content=photos(running)[0].read_bytes())
        await client.post("/v1/localize", content=b"words")
        await client.get("/nowhere/at/all")
        return (await client.get("/metrics")).text

    text = running.ask(talk)
    for line in (
        'vpr_dhe_requests_total{route="/v1/localize",status="200"} 1.0',
        'vpr_dhe_requests_total{route="/v1/localize",status="422"} 1.0',
        'vpr_dhe_requests_total{route="other",status="404"} 1.0',
        "vpr_dhe_batch_images_count 1.0",
        "vpr_dhe_queue_requests 0.0",
        "vpr_dhe_index_images 12.0",
        *(f'vpr_dhe_stage_seconds_count{{stage="{stage}"}} 1.0' for stage in ("extract", "search", "rerank")),
    ):
        assert line in text


def test_a_position_restricts_the_search(running):
    path = photos(running)[3]
    records = [
        replace(record, position=MetricPosition(10.0 * row, 0.0)) for row, record in enumerate(running.records())
    ]
    running.index.add(records, running.extractor)
    answer = running.post("/v1/localize", path.read_bytes(), params={"near": "30,0", "within_m": 10}).json()
    assert {match["image"] for match in answer["matches"]} == {records[row].path for row in (2, 3, 4)}
    assert (answer["near"]["within_m"], answer["near"]["images"], answer["near"]["unplaced"]) == (10, 3, 0)
    nowhere = running.post("/v1/localize", path.read_bytes(), params={"near": "30,99", "within_m": 10})
    assert (nowhere.status_code, nowhere.json()["known"], nowhere.json()["matches"]) == (200, False, [])
    for wrong in ({"near": "30,0"}, {"within_m": 10}, {"near": "x", "within_m": 10}, {"near": "3,0", "within_m": -1}):
        assert running.post("/v1/localize", path.read_bytes(), params=wrong).status_code == 422
