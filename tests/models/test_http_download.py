"""Downloads from a server that is cut, slow, wrong or gone."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import serving

from vpr_dhe.errors import DownloadError
from vpr_dhe.models import http_download
from vpr_dhe.models.http_download import download

CONTENT = np.random.default_rng(0).bytes(300_000)
CHUNK = 10_000


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http_download, "_PAUSE_S", 0.0)
    monkeypatch.setattr(http_download, "_CHUNK_BYTES", CHUNK)
    with serving() as made:
        made.files["/weights.pth"] = CONTENT
        yield made


@pytest.fixture
def fetch(server, tmp_path):
    def fetched(path="/weights.pth"):
        target = tmp_path / "cache" / "weights.pth"
        download(server.address + path, target)
        assert [file.name for file in target.parent.iterdir()] == ["weights.pth"]
        return target.read_bytes()

    return fetched


def test_a_file(fetch, server):
    assert fetch() == CONTENT
    assert server.sent_ranges() == [None]


def test_redirects(fetch, server):
    server.redirects["/latest"] = f"{server.address}/weights.pth"
    assert fetch("/latest") == CONTENT


@pytest.mark.parametrize("tags", [True, False])
def test_a_cut_download_goes_on(fetch, server, tags):
    server.tags = tags
    server.faults = [(25_000,), (50_000,), 503]
    assert fetch() == CONTENT
    assert server.sent_ranges() == [None, "bytes=25000-", "bytes=75000-", "bytes=75000-"]


def test_a_redirected_download_goes_on(fetch, server):
    server.redirects["/latest"] = f"{server.address}/weights.pth"
    server.faults = [(25_000,)]
    assert fetch("/latest") == CONTENT
    assert server.sent_ranges() == [None, "bytes=25000-"]


def test_servers_without_ranges(fetch, server):
    server.ranges = False
    server.faults = [(25_000,)]
    assert fetch() == CONTENT


class _Interrupting:
    """Progress bar that is interrupted, as by Ctrl-C, after three chunks."""

    def __init__(self):
        self.chunks = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, _):
        self.chunks += 1
        if self.chunks == 3:
            raise KeyboardInterrupt


def test_an_interrupted_download_goes_on_in_the_next_run(fetch, server, tmp_path, monkeypatch):
    with monkeypatch.context() as interrupted:
        interrupted.setattr(http_download, "_bar", lambda *_: _Interrupting())
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert (tmp_path / "cache" / "weights.pth.part").stat().st_size == 3 * CHUNK
    assert fetch() == CONTENT
    assert server.sent_ranges() == [None, f"bytes={3 * CHUNK}-"]


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_was_replaced_is_fetched_from_its_beginning(fetch, server, tmp_path, monkeypatch, tags):
    server.tags = tags
    with monkeypatch.context() as interrupted:
        interrupted.setattr(http_download, "_bar", lambda *_: _Interrupting())
        with pytest.raises(KeyboardInterrupt):
            fetch()
    server.files["/weights.pth"] = CONTENT[::-1][:200_000]
    assert fetch() == CONTENT[::-1][:200_000]


def test_a_part_without_facts_is_not_trusted(fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.pth.part").write_bytes(b"of another file")
    assert fetch() == CONTENT


def test_a_server_that_is_cut_again_and_again(fetch, server):
    server.faults = [(25_000,), *[(0,)] * 5]
    with pytest.raises(DownloadError, match=r"failed 5 times in a row .*resume it from byte 25000"):
        fetch()
    assert fetch() == CONTENT


@pytest.mark.parametrize("status", [403, 404])
def test_refusals(fetch, server, status):
    server.faults = [status]
    with pytest.raises(DownloadError, match=f"the server answered {status}"):
        fetch()
    assert len(server.requests) == 1


def test_no_server(tmp_path):
    with serving() as gone:
        address = gone.address
    with pytest.raises(DownloadError, match="cannot be reached"):
        download(f"{address}/weights.pth", tmp_path / "weights.pth")


def test_a_slow_server_times_out(fetch, server, monkeypatch):
    """A read that times out is a cut connection; the next attempt goes on."""
    read, calls = http_download._read, iter([None, None, TimeoutError("timed out")])

    def slow(response):
        if (error := next(calls, None)) is not None:
            return read(SimpleNamespace(read=lambda _: (_ for _ in ()).throw(error)))
        return read(response)

    monkeypatch.setattr(http_download, "_read", slow)
    assert fetch() == CONTENT
    assert server.sent_ranges() == [None, f"bytes={2 * CHUNK}-"]


def test_no_room(fetch, server, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match=r"takes 0 MB and the disk of .* has 0 MB left.*VPR_DHE_CACHE"):
        fetch()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_disk_that_fills_up(server, tmp_path):
    (tmp_path / "weights.pth.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="is full; make room"):
        download(f"{server.address}/weights.pth", tmp_path / "weights.pth")


def test_a_folder_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot write to .*set VPR_DHE_CACHE"):
        download(f"{server.address}/weights.pth", tmp_path / "file" / "weights.pth")
