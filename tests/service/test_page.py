"""The page where a person asks: what it is made of, and in headless Chromium what it does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from vpr_dhe.service.app import build_app


def test_it_is_three_files_from_here_alone(running):
    async def talk(client):
        return [await client.get(path) for path in ("/", "/page.js", "/style.css")]

    for response, kind in zip(running.ask(talk), ("text/html", "text/javascript", "text/css"), strict=True):
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
        page.locator("button").click()
        page.locator("#status", has_text="not an image").wait_for()
        assert not page.locator("#answer").is_visible()
        page.close()
    assert troubles == []


def is_own(url: str, address: str) -> bool:
    return url.startswith((address, "blob:", "data:"))
