"""The page where a person asks: what it is made of, and in headless Chromium what it does."""

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import PIL.Image
import pytest
import uvicorn

from vpr_dhe.geography.wgs84 import metres_per_degree
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.selection import SelectedCalibration
from vpr_dhe.records import Features, GeoPosition
from vpr_dhe.report.html.names import readable_name
from vpr_dhe.service.app import build_app

KINDS = {
    "/": "text/html",
    **dict.fromkeys(("/page.js", "/answer.js", "/map.js"), "text/javascript"),
    **dict.fromkeys(("/style.css", "/page.css"), "text/css"),
}


def test_its_files_are_from_here_alone(running):
    async def talk(client):
        return [await client.get(path) for path in KINDS]

    for response, kind in zip(running.ask(talk), KINDS.values(), strict=True):
        assert (response.status_code, response.headers["content-type"].split(";")[0]) == (200, kind)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "http" not in response.text


@contextmanager
def listening(running) -> Iterator[str]:
    """The service behind a real port, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        server = uvicorn.Server(uvicorn.Config(build_app(running.service, None), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [port]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.browser
def test_a_person_asks_with_a_photo(browser, running, tmp_path):
    words = tmp_path / "words.jpg"
    words.write_text("these are words")
    hostile = running.folder / "<b>&amp; ünï.png"
    (running.folder / "05.png").rename(hostile)
    running.index.add(running.records(), running.extractor)
    running.index.remove([running.index.find("05.png")])
    with listening(running) as address:
        page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
        page.set_default_timeout(120_000)
        troubles = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url) if not is_own(request.url, address) else None)
        page.goto(address)
        page.locator("#index", has_text="12 images in index").wait_for()
        page.locator("#photo").set_input_files(hostile)
        page.locator("#photo").focus()
        for _ in range(4):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.tagName") == "BUTTON":
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer:not([hidden]) img")
        for picture in page.locator("#answer img").all():
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 80
        assert "5 matches" in page.locator("#status").text_content()
        assert page.evaluate("document.activeElement.id") == "answer-title"
        captions = page.locator("#matches figcaption").all_text_contents()
        assert captions[0].startswith("1. 16 inliers, similarity 1.000")
        assert captions[0].endswith(hostile.name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert len(page.screenshot(path=tmp_path / "page.png", full_page=True)) > 5000

        page.locator("#photo").set_input_files(words)
        page.locator("#query button").click()
        page.locator("#status", has_text="not an image").wait_for()
        assert not page.locator("#answer").is_visible()
        page.close()
    assert troubles == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
def test_a_weak_answer_looks_weak_and_the_map_shows_where(browser, running, new_photo, tmp_path, width):
    """Each photo stands 20 m east of the one before; the calibration gives every answer a probability of 0.6."""
    east, _ = metres_per_degree(60.0)
    records = [
        replace(record, position=GeoPosition(60.0, 10.0 + 20 * number / east))
        for number, record in enumerate(running.records())
    ]
    running.index.add(records, running.extractor)
    conditions = Conditions(running.extractor.spec.fingerprint, "magsac", 100)
    calibration = Calibration(conditions, 25.0, 0.5, 10, 5, 12, math.log(1.5), {})
    running.localizer.selected_calibration = SelectedCalibration(calibration, "index")
    with listening(running) as address:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        troubles = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(address)
        page.locator("#photo").set_input_files(running.folder / "03.png")
        page.locator("#query button").click()
        page.locator("#badge", has_text="unsure, p = 0.60").wait_for()
        assert page.locator("#answer-title").text_content() == "Perhaps here"
        page.locator(".lines line").nth(3).wait_for(state="attached")
        ends = page.locator(".lines line").first.evaluate(
            "line => ['x1', 'y1', 'x2', 'y2'].map((name) => line[name].baseVal.value)"
        )
        # The photo is matched with itself: lines lead from each point to the same one of the other picture.
        query, match = (page.locator(name).bounding_box() for name in ("#query-photo", "#match-photo"))
        assert ends[2] - ends[0] == pytest.approx(match["x"] - query["x"], abs=2)
        assert ends[3] - ends[1] == pytest.approx(match["y"] - query["y"], abs=2)
        assert query["width"] == pytest.approx(match["width"], abs=1)
        assert page.locator("#place circle.place-database").count() >= 5
        pins = {pin.text_content()[0]: pin.bounding_box()["x"] for pin in page.locator("#place .pin[transform]").all()}
        names = page.locator("#matches figcaption .quiet").all_text_contents()
        places = [int(name.split("/")[-1][:2]) for name in names]
        assert sorted(pins, key=pins.get) == [str(1 + rank) for rank in sorted(range(5), key=places.__getitem__)]
        assert page.locator("#place ellipse").count() >= 1
        assert page.locator("a[href^='geo:60.00']").count() >= 6
        assert page.evaluate("document.documentElement.scrollWidth") <= width

        page.locator("#least").fill("0.7")
        page.locator("#badge", has_text="rejected, p = 0.60").wait_for()
        assert page.locator("#answer-title").text_content() == "Unknown place"
        assert page.locator("#matches li").count() == 5
        page.locator("#matches button").nth(1).click()
        assert page.locator("#match-tag").text_content().startswith("2. ")
        assert len(page.screenshot(path=tmp_path / "weak.png", full_page=True)) > 5000
        page.close()
    assert troubles == []


@pytest.mark.browser
def test_the_page_shortens_names_as_reports_do(browser, running):
    names = ["a.jpg", "x/street/a.jpg", "@1@2@32@U@@@town7@@90.40@7@@@@@.jpg", "@1@2@@@@@@@@@@@@note@.jpg", "@odd.jpg"]
    with listening(running) as address:
        page = browser.new_page()
        page.goto(address)
        short = page.evaluate("names => import('./answer.js').then((one) => names.map(one.readableName))", names)
        page.close()
    assert short == [readable_name(name) for name in names]
    assert short == ["a.jpg", "street/a.jpg", "town7, 90°", "note", "@odd.jpg"]


def is_own(url: str, address: str) -> bool:
    return url.startswith((address, "blob:", "data:"))


@pytest.mark.browser
def test_a_blank_photo_is_said_to_be_blank(browser, running, tmp_path, monkeypatch):
    monkeypatch.setattr(Features, "is_blank", property(lambda _: True))
    PIL.Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / "wall.png")
    conditions = Conditions(running.extractor.spec.fingerprint, "magsac", 100)
    calibration = Calibration(conditions, 25.0, 0.5, 10, 5, 12, math.log(1.5), {})
    running.localizer.selected_calibration = SelectedCalibration(calibration, "index")
    with listening(running) as address:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator("#photo").set_input_files(tmp_path / "wall.png")
        page.locator("#query button").click()
        page.locator("#badge", has_text="blank").wait_for()
        assert page.locator("#answer").is_visible()
        assert "too little texture" in page.locator("#answer").text_content()
        page.close()
