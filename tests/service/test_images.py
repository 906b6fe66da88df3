"""Images that come over HTTP: who may send them, where they go, and that they are found."""

import asyncio
import io

import httpx
import PIL.Image
import pytest

from vpr_dhe.index.manifest import lock_for_writing
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import GeoPosition

TOKEN = "a secret of the test's own"
ALLOWED = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def running(running):
    running.token = TOKEN
    return running


def add(running, content: bytes, name: str = "new/photo.png", **parameters) -> httpx.Response:
    return running.post("/v1/images", content, params={"name": name, **parameters}, headers=ALLOWED)


def test_an_added_image_is_stored_and_found(running, new_photo):
    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        where = {"name": "new/photo.png", "latitude": 49.25, "longitude": 7.5}
        added = await client.post("/v1/images", content=new_photo, params=where, headers=ALLOWED)
        found = await client.post("/v1/localize", content=new_photo, params={"top_k": 1})
        small = await client.get("/v1/thumbnail", params={"image": "new/photo.png"})
        return [added, found, small, await client.get("/v1/index")]

    added, found, small, described = running.ask(talk)
    assert (added.status_code, added.json()) == (201, {"images": [{"image": "new/photo.png", "id": 12}], "added": 1})
    best = found.json()["matches"][0]
    assert (best["image"], best["inliers"]) == ("new/photo.png", 16)
    assert best["position"] == {"latitude_deg": 49.25, "longitude_deg": 7.5}
    assert PIL.Image.open(io.BytesIO(small.content)).size == (120, 90)
    assert described.json()["images"] == 13
    assert (running.folder / "new/photo.png").read_bytes() == new_photo
    reopened = PlaceIndex.open(running.index.folder)
    assert reopened.image(reopened.find("new/photo.png")).position == GeoPosition(49.25, 7.5)
    assert reopened.check().damaged == ()


def test_a_form_adds_several_and_the_standard_names_say_where(running, new_photo):
    names = ["@500.00@600.00@32@U@@@@@90.00@@@@@.png", "b.png"]
    files = [("image", (name, new_photo)) for name in names]
    response = running.ask(lambda client: client.post("/v1/images", files=files, headers=ALLOWED))
    assert (response.status_code, response.json()["added"]) == (201, 2)
    id = running.index.find(names[0])
    assert (running.index.image(id).position.x_m, running.index.image(id).heading_deg) == (500.0, 90.0)


def test_sending_an_image_again_changes_nothing(running, new_photo):
    first, again = add(running, new_photo), add(running, new_photo)
    assert (first.status_code, again.status_code, again.json()["added"]) == (201, 200, 0)
    assert again.json()["images"] == first.json()["images"]
    other = (running.folder / "00.png").read_bytes()
    conflict = add(running, other)
    assert (conflict.status_code, "another image" in conflict.json()["error"]) == (409, True)
    assert (running.folder / "new/photo.png").read_bytes() == new_photo
    assert len(running.index) == 13


def test_only_the_token_opens(running, new_photo):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
        response = running.post("/v1/images", new_photo, params={"name": "a.png"}, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert "token is needed" in response.json()["error"]
    running.token = None
    response = add(running, new_photo)
    assert (response.status_code, "VPR_DHE_TOKEN" in response.json()["error"]) == (403, True)
    assert len(running.index) == 12
    assert not (running.folder / "new").exists()


ELSEWHERE = (
    "", "../out.png", "/etc/out.png", "a/../../out.png", "a//b.png", ".hidden.png", ".git/a.png", "notes.txt",
    "c:\\out.png", "a\n.png", "x" * 201 + ".png", "./a.png", "link/out.png",
)  # fmt: skip


def test_names_that_lead_elsewhere_are_refused(running, new_photo, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (running.folder / "link").symlink_to(tmp_path / "elsewhere")

    async def talk(client: httpx.AsyncClient) -> None:
        for name in ELSEWHERE:
            response = await client.post("/v1/images", content=new_photo, params={"name": name}, headers=ALLOWED)
            assert (response.status_code, "image name" in response.json()["error"]) == (422, True), name

    running.ask(talk)
    assert not list(tmp_path.rglob("out.png"))
    assert len(running.index) == 12


def test_what_cannot_be_added_leaves_nothing_behind(running, new_photo):
    before = sorted(running.folder.rglob("*"))
    truncated = add(running, new_photo[:200])
    assert (truncated.status_code, "new/photo.png: " in truncated.json()["error"]) == (422, True)
    half_a_place = add(running, new_photo, latitude=3)
    assert (half_a_place.status_code, "belong together" in half_a_place.json()["error"]) == (422, True)
    assert add(running, new_photo, latitude=91, longitude=0).status_code == 422
    assert add(running, new_photo, latitude="nan", longitude=0).status_code == 422
    blocked = add(running, new_photo, "00.png/a.png")
    assert (blocked.status_code, "another image" in blocked.json()["error"]) == (409, True)
    twice = [("image", ("a.png", new_photo)), ("image", ("a.png", new_photo))]
    response = running.ask(lambda client: client.post("/v1/images", files=twice, headers=ALLOWED))
    assert (response.status_code, "same name" in response.json()["error"]) == (422, True)
    assert sorted(running.folder.rglob("*")) == before


def test_while_another_process_writes_the_caller_is_told_to_come_back(running, new_photo):
    with lock_for_writing(running.index.folder):
        busy = add(running, new_photo)
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert "another process is writing" in busy.json()["error"]
    assert add(running, new_photo).status_code == 201


def test_what_another_process_removes_is_seen(running):
    async def talk(client: httpx.AsyncClient) -> int:
        PlaceIndex.open(running.index.folder).remove([0, 1])
        for _ in range(50):
            await asyncio.sleep(0.1)
            if (images := (await client.get("/v1/index")).json()["images"]) != 12:
                break
        return images

    assert running.ask(talk) == 10


def test_queries_while_images_come_in_see_whole_states(running, new_photo):
    """Each query is answered, and one that begins after an acknowledgement finds what was acknowledged."""
    photo = (running.folder / "03.png").read_bytes()

    async def talk(client: httpx.AsyncClient) -> None:
        async def grow() -> None:
            for number in range(8):
                noisy = PIL.Image.open(io.BytesIO(new_photo)).rotate(45 * number)
                file = io.BytesIO()
                noisy.save(file, "PNG")
                where = {"name": f"grown/{number}.png"}
                added = await client.post("/v1/images", content=file.getvalue(), params=where, headers=ALLOWED)
                assert added.status_code == 201
                found = await client.post("/v1/localize", content=file.getvalue(), params={"top_k": 1})
                assert found.json()["matches"][0]["image"] == where["name"]

        growing = asyncio.create_task(grow())
        while not growing.done():
            answer = await client.post("/v1/localize", content=photo, params={"top_k": 1})
            assert answer.json()["matches"][0]["image"] == "03.png"
        await growing

    running.ask(talk)
    assert len(running.index) == 20


def test_thumbnails_are_of_indexed_images_alone(running, tmp_path):
    outside = running.folder.parent / "secret.png"
    outside.write_bytes((running.folder / "00.png").read_bytes())
    (running.folder / "01.png").unlink()
    for name, reason in (
        ("../secret.png", "holds no image"),
        ("none.png", "holds no image"),
        ("01.png", "cannot be read"),
    ):
        response = running.ask(lambda client, name=name: client.get("/v1/thumbnail", params={"image": name}))
        assert (response.status_code, reason in response.json()["error"]) == (404, True)
    assert running.get("/v1/thumbnail").status_code == 422
