"""Published models by name, from a server on the loopback interface."""

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from file_server import serving

from vpr_dhe.cli import main
from vpr_dhe.errors import DownloadError, ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models import http_download, importers
from vpr_dhe.models.http_download import require_reachable
from vpr_dhe.models.hub import cached, fetch
from vpr_dhe.models.model_file import load_model
from vpr_dhe.models.published import PUBLISHED, Licence, Place, PublishedModel

NAME = "cosplace-resnet18-32"


@dataclass(frozen=True)
class _Local(PublishedModel):
    """A model that the test's server publishes."""

    address: str = ""

    @property
    def url(self) -> str:
        return f"{self.address}/{self.file}"


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """A checkpoint of CosPlace with random weights."""
    torch.manual_seed(0)
    children = list(torchvision.models.resnet18(weights=None).children())[:-2]
    state = {f"backbone.{key}": value for key, value in torch.nn.Sequential(*children).state_dict().items()}
    state |= {"aggregation.1.p": torch.tensor([3.0]), "aggregation.3.bias": torch.randn(32)}
    file = io.BytesIO()
    torch.save(state | {"aggregation.3.weight": torch.randn(32, 512)}, file)
    return file.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VPR_DHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(http_download, "_PAUSE_S", 0.0)
    return tmp_path / "cache" / "models"


@pytest.fixture
def server(checkpoint, cache, monkeypatch):
    with serving() as made:
        local = _Local(**vars(PUBLISHED[NAME]), address=made.address)
        monkeypatch.setitem(PUBLISHED, NAME, local)
        made.files[f"/{local.file}"] = checkpoint
        yield made


@pytest.fixture
def gone(cache, monkeypatch):
    """A server that is gone, as all are without a network."""
    with serving() as made:
        address = made.address
    monkeypatch.setitem(PUBLISHED, NAME, _Local(**vars(PUBLISHED[NAME]), address=address))
    return address


def run(*arguments, monkeypatch) -> int:
    monkeypatch.setattr("sys.argv", ["vpr-dhe", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_a_model_is_fetched_once(server, cache, checkpoint):
    assert cached(NAME) is None
    path = fetch(NAME)
    assert (path, cached(NAME)) == (cache / f"{NAME}.safetensors", path)
    assert fetch(NAME) == path
    assert len(server.requests) == 1
    model = load_model(path)
    digest = hashlib.sha256(checkpoint).hexdigest()
    assert model.name == NAME
    assert model.origin is not None
    assert model.origin.files == {"ResNet18_32_cosplace.pth": digest}
    assert model.origin.url == f"{server.address}/ResNet18_32_cosplace.pth"
    record = json.loads((cache / f"{NAME}.json").read_text())
    assert (record["sha256"], record["bytes"]) == (digest, len(checkpoint))
    assert not list(cache.glob(".*"))


@pytest.mark.slow
def test_an_index_by_the_name_of_a_model(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    arguments = ("--model", NAME, "--runtime", "torch")
    assert run("index", tmp_path / "photos", "--out", tmp_path / "map", *arguments, monkeypatch=monkeypatch) == 0
    query = ("query", tmp_path / "map", tmp_path / "photos" / "1.png", "--format", "json", "--runtime", "torch")
    capsys.readouterr()
    assert run(*query, monkeypatch=monkeypatch) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == NAME
    assert document["queries"][0]["matches"][0]["image"].endswith("1.png")
    assert len(server.requests) == 1


def test_an_extractor_by_the_name_of_a_model(server):
    extractor = load_extractor(NAME, runtime="torch")
    assert (extractor.spec.model, extractor.spec.dimension) == (NAME, 32)
    assert extractor.spec.fingerprint == load_extractor(str(fetch(NAME)), runtime="torch").spec.fingerprint
    assert len(server.requests) == 1


def test_two_processes_fetch_at_once(server):
    """Locks are those of open files, so threads stand for processes."""
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, [NAME] * 4))
    assert len(set(paths)) == len(server.requests) == 1
    load_model(paths[0])


def test_a_cut_download_goes_on_in_the_next_run(server, cache):
    server.faults = [(1_000_000,), *[404]]
    with pytest.raises(DownloadError, match="404"):
        fetch(NAME)
    fetch(NAME)
    assert server.sent_ranges()[-1] == "bytes=1000000-"


def test_another_file_than_at_the_first_use_is_refused(server, cache, checkpoint):
    fetch(NAME).unlink()
    (cache / "downloads" / NAME / "ResNet18_32_cosplace.pth").unlink()
    server.files["/ResNet18_32_cosplace.pth"] = checkpoint[:-1] + b"!"
    first, other = (hashlib.sha256(content).hexdigest() for content in (checkpoint, checkpoint[:-1] + b"!"))
    for _ in range(2):
        with pytest.raises(DownloadError, match=rf"SHA-256 {other}, and at the first use it had {first}.*delete"):
            fetch(NAME)
    server.files["/ResNet18_32_cosplace.pth"] = checkpoint
    fetch(NAME)


def test_a_file_of_another_family_is_refused(server, cache):
    file = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(3)}, file)
    server.files["/ResNet18_32_cosplace.pth"] = file.getvalue()
    with pytest.raises(ModelError, match="not a checkpoint of cosplace"):
        fetch(NAME)
    assert cached(NAME) is None


def test_a_page_of_a_proxy_in_place_of_a_file_spoils_only_that_run(server, cache):
    good = server.files["/ResNet18_32_cosplace.pth"]
    server.files["/ResNet18_32_cosplace.pth"] = b"<html>please log in</html>"
    with pytest.raises(ModelError):
        fetch(NAME)
    server.files["/ResNet18_32_cosplace.pth"] = good
    assert fetch(NAME).is_file()


def test_an_address_without_a_scheme_is_explained():
    with pytest.raises(DownloadError, match=r"'hf-mirror\.com' is no address; expected one such as https"):
        require_reachable("hf-mirror.com")


def test_without_a_network(gone, cache, monkeypatch, capsys):
    (cache).mkdir(parents=True)
    (cache / "eigenplaces-vgg16-512.safetensors").touch()
    assert run("export", NAME, "--out", cache / "x", monkeypatch=monkeypatch) == 1
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{NAME} could not be downloaded: {gone}/ResNet18_32_cosplace.pth cannot be reached" in message
    assert (
        "without a download these work: lite-vlad, sift-vlad, cct-offline, cct-lite, eigenplaces-vgg16-512; or"
        in message
    )
    assert f"--kind cosplace --out {cache / NAME}.safetensors`" in message


def test_a_cache_that_cannot_be_written_to(server, cache):
    cache.parent.touch()
    with pytest.raises(DownloadError, match="VPR_DHE_CACHE"):
        fetch(NAME)


@pytest.mark.parametrize(
    ("licence", "said"), [(Licence.gpl, "GPL-3.0"), (Licence.none, "without a licence"), (Licence.mit, None)]
)
def test_restrictive_licences_are_told_at_the_first_use(server, monkeypatch, caplog, licence, said):
    for name, model in PUBLISHED.items():
        if model.family == "cosplace":
            monkeypatch.setitem(PUBLISHED, name, replace(model, licence=licence))
    for expected in (said, None):
        caplog.clear()
        fetch(NAME)
        warnings = [one.message for one in caplog.records if "publishes its weights" in one.message]
        assert len(warnings) == (expected is not None)
        assert expected is None or expected in warnings[0]


def test_a_file_for_the_browser(cache, checkpoint, tmp_path, monkeypatch, capsys):
    """The sentence gives the command, and after it the name works."""
    by_hand = replace(PUBLISHED[NAME], place=Place.drive, key="1abc", repository="someone/CosPlace")
    monkeypatch.setitem(PUBLISHED, NAME, by_hand)
    with pytest.raises(DownloadError) as raised:
        fetch(NAME)
    message = str(raised.value)
    assert "ResNet18_32_cosplace.pth from https://drive.google.com/file/d/1abc/view" in message
    command = message.split("`")[1].split()
    (tmp_path / command[2]).write_bytes(checkpoint)
    monkeypatch.chdir(tmp_path)
    assert run(*command[1:], monkeypatch=monkeypatch) == 0
    assert fetch(NAME) == cached(NAME)
    capsys.readouterr()
    assert run("models", NAME, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert f"converted from: ResNet18_32_cosplace.pth, SHA-256 {hashlib.sha256(checkpoint).hexdigest()}" in shown
    assert "published at: https://drive.google.com/file/d/1abc/view" in shown
    assert "licence: MIT (gmberton/CosPlace" in shown


def test_models_on_the_hub(server, cache, checkpoint, monkeypatch):
    on_hub = PublishedModel(NAME, "cosplace", 32, Licence.mit, Place.hub, "someone/Model", "model.pth")
    monkeypatch.setitem(PUBLISHED, NAME, on_hub)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    server.files["/someone/Model/resolve/main/model.pth"] = checkpoint
    path = fetch(NAME)
    requests = len(server.requests)
    assert fetch(NAME) == path
    assert len(server.requests) == requests
    origin = load_model(path).origin
    assert origin is not None
    assert origin.url == "https://huggingface.co/someone/Model/resolve/main/model.pth"


def test_what_is_not_on_the_hub(server, cache, monkeypatch):
    on_hub = PublishedModel(NAME, "cosplace", 32, Licence.mit, Place.hub, "someone/Model", "model.pth")
    monkeypatch.setitem(PUBLISHED, NAME, on_hub)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    with pytest.raises(DownloadError, match=r"the hub's client failed .*; without a download these work: lite-vlad"):
        fetch(NAME)


def test_a_hub_that_cannot_be_reached(gone, monkeypatch):
    on_hub = PublishedModel(NAME, "cosplace", 32, Licence.mit, Place.hub, "someone/Model", "model.pth")
    monkeypatch.setitem(PUBLISHED, NAME, on_hub)
    monkeypatch.setenv("HF_ENDPOINT", gone)
    with pytest.raises(DownloadError, match=f"{gone} cannot be reached"):
        fetch(NAME)


def test_the_family_is_found_from_the_tensors(tmp_path, checkpoint):
    (tmp_path / "ResNet18_32_eigenplaces.pth").write_bytes(checkpoint)
    assert importers.family_of([tmp_path / "ResNet18_32_eigenplaces.pth"]) == "eigenplaces"
    (tmp_path / "weights.pth").write_bytes(checkpoint)
    with pytest.raises(ModelError, match="--kind cosplace or --kind eigenplaces"):
        importers.family_of([tmp_path / "weights.pth"])
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth of fc\.weight is of no known family \(dhe-vpr, cct, "):
        importers.family_of([tmp_path / "other.pth"])
