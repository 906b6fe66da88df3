"""`python -m vpr_dhe serve` over real connections: answers, signals, kills, and a user's mistakes."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from waiting import wait_until

from vpr_dhe.cli import main

ALLOWED = {"authorization": "Bearer the token"}


def photo(seed: int) -> bytes:
    file = io.BytesIO()
    coarse = PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8))
    coarse.resize((320, 240), PIL.Image.Resampling.NEAREST).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(photo(number))
    arguments = ["vpr-dhe", "index", str(folder), "--out", str(tmp_path / "index"), "--codec", "float16"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return tmp_path / "index"


@contextmanager
def served(index: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A service in a process of its own, ready, and a client of it."""
    command = [sys.executable, "-m", "vpr_dhe", "serve", str(index), "--port", "0", *map(str, options)]
    environment = os.environ | {"VPR_DHE_TOKEN": "the token"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://\S+", process.stderr.readline())
            assert address, process.stderr.read()
            with httpx.Client(base_url=address[0], timeout=120) as client:
                assert client.get("/readyz").status_code == 200
                yield process, client
        finally:
            process.kill()


def test_it_answers_as_the_command_line_does_and_ends_in_order(index, tmp_path, monkeypatch, capsys):
    query = tmp_path / "query.jpg"
    query.write_bytes(photo(3))
    monkeypatch.setattr(sys, "argv", ["vpr-dhe", "query", str(index), str(query), "--format", "json"])
    with pytest.raises(SystemExit):
        main()
    [told] = json.loads(capsys.readouterr().out)["queries"]
    with served(index, "--max-body-mb", 1) as (process, client):
        answer = client.post("/v1/localize", files={"image": query.open("rb")}).json()
        assert answer["matches"] == told["matches"]
        assert (answer["query"], answer.keys()) == ("query.jpg", told.keys())
        assert answer["matches"][0]["image"] == "3.jpg"

        for body, status in ((b"words", 422), (bytes(1_200_000), 413), (photo(3)[:3000], 422)):
            refused = client.post("/v1/localize", content=body)
            assert (refused.status_code, list(refused.json())) == (status, ["error"])

        # Half of a photo is let in, and the other half comes when the service has been told to stop.
        slow = http.client.HTTPConnection(client.base_url.host, client.base_url.port or 80, timeout=120)
        slow.putrequest("POST", "/v1/localize")
        slow.putheader("Content-Length", str(len(photo(2))))
        slow.endheaders(photo(2)[:1000])
        wait_until(lambda: "vpr_dhe_queue_requests 1.0" in client.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        late = client.post("/v1/localize", content=photo(1))
        assert (late.status_code, "stopping" in late.json()["error"]) == (503, True)
        slow.send(photo(2)[1000:])
        assert json.loads(slow.getresponse().read())["matches"][0]["image"] == "2.jpg"
        slow.close()
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(index):
    acknowledged = []
    for life in range(2):
        with served(index) as (process, client):
            for name, content in acknowledged:
                assert client.post("/v1/localize", content=content).json()["matches"][0]["image"] == name
            for number in range(3):
                name, content = f"life-{life}/{number}.jpg", photo(100 + 10 * life + number)
                added = client.post("/v1/images", content=content, params={"name": name}, headers=ALLOWED)
                assert added.status_code == 201
                acknowledged.append((name, content))
            address = client.base_url
            unheard = {"params": {"name": f"unheard-{life}.jpg"}, "headers": ALLOWED, "timeout": 60}
            thread = threading.Thread(target=_silently, args=(address, unheard))
            thread.start()
            process.kill()
            thread.join()
    with served(index) as (_, client):
        for name, content in acknowledged:
            assert client.post("/v1/localize", content=content).json()["matches"][0]["image"] == name


def _silently(address: object, request: dict) -> None:
    """Send an image whose acknowledgement nobody waits for."""
    try:
        httpx.post(f"{address}/v1/images", content=photo(999), **request)
    except httpx.HTTPError:
        return


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["vpr-dhe", "serve", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


def test_mistakes_are_one_line(index, tmp_path, monkeypatch, capsys):
    assert "does not exist" in run(monkeypatch, capsys, tmp_path / "none")[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, errors = run(monkeypatch, capsys, index, "--port", taken.getsockname()[1])
    assert (code, "cannot listen at 127.0.0.1" in errors) == (2, True)
    code, errors = run(monkeypatch, capsys, index, "--host", "no such host")
    assert (code, "cannot listen at no such host" in errors) == (2, True)
    # None in its place is what makes an import fail.
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, errors = run(monkeypatch, capsys, index)
    assert (code, 'pip install "vpr-dhe[serve]"' in errors) == (2, True)
