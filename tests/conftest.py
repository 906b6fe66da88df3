"""What all tests share: where the real images are, how property tests run, and an extractor small enough for any."""

import os

# Tests run in as many processes as there are cores, so each of them, and each command that it starts, takes one.
# Torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch.nn.functional import normalize

from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.images.loading import image_size
from vpr_dhe.index import codec_choice
from vpr_dhe.index.vectors import build
from vpr_dhe.records import Features, Frame, Grid, Image, Size

# Timings vary on shared machines, and a failure must be the same one tomorrow. As examples are then the same in every
# run, another fifty would be paid for each time and find nothing new.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("steady")


FEWER = {(codec_choice, "_QUERIES"): 2, (codec_choice, "_QUERIES_OF_NETWORK"): 1, (build, "_QUERIES"): 32}
USUAL = {(module, name): getattr(module, name) for module, name in FEWER}


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory) -> None:
    """Keep what commands put into the user's cache out of it."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    # A file where networks converted for ONNX Runtime would be kept: small models run in torch, because a conversion
    # takes seconds for each of them. Tests of the conversion have a cache of their own.
    (cache / "vpr-dhe").mkdir()
    (cache / "vpr-dhe" / "onnx").touch()


@pytest.fixture(scope="session", autouse=True)
def _short_measurements() -> Iterator[None]:
    """Choose codecs by few pairs, and tune FAISS files by few queries: nearly every test makes an index."""
    with pytest.MonkeyPatch.context() as patched:
        for (module, name), value in FEWER.items():
            patched.setattr(module, name, value)
        yield


@pytest.fixture
def usual_measurements(monkeypatch) -> None:
    """Choose codecs and tune FAISS files by as many pairs and queries as for users."""
    for (module, name), value in USUAL.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images, or a skip that says how to get it."""
    folder = Path(os.environ.get("VPR_DHE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set VPR_DHE_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium, or a skip that says how to get it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    installed = next((path for name in names if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except playwright.Error:
            pytest.skip("no Chromium; install one, or run `playwright install chromium`")
        yield browser
        browser.close()


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """Objects are freed with their last reference, and cycles never."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class ThumbnailExtractor(Extractor):
    """Represents an image by its 16 x 16 thumbnail, and each cell of a 4 x 4 grid by its part of it."""

    def __init__(self, fingerprint: str = "thumbnail", *, unit_norm: bool = True) -> None:
        self.spec = ExtractorSpec("thumbnail", fingerprint, 256, 16, Grid(4, 4), Size(16, 16), unit_norm, 3.0)
        self.batches: list[int] = []

    def extract(self, images: Sequence[Image]) -> list[Features]:
        self.batches.append(len(images))
        return [self._extract_one(image) for image in images]

    def _extract_one(self, image: Image) -> Features:
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
        thumbnail = torch.from_numpy(grey).float() - 127.5
        cells = thumbnail.unfold(0, 4, 4).unfold(1, 4, 4).reshape(16, 16)
        frame = Frame(image_size(image), self.spec.input_size)
        return Features(thumbnail.flatten(), normalize(cells, dim=1), self.spec.grid, frame)


@pytest.fixture
def thumbnail_extractor() -> ThumbnailExtractor:
    return ThumbnailExtractor()


@pytest.fixture
def other_extractor() -> ThumbnailExtractor:
    return ThumbnailExtractor("another model")


class Exported(NamedTuple):
    """A model file, and the folder of its export."""

    model: Path
    folder: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory, worker_id) -> Exported:
    """A CCT of one block and random weights, exported once for all processes, because that takes seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "exported"
    with FileLock(f"{folder}.lock"):
        made = Exported(folder / "tiny.safetensors", folder / "onnx")
        if not made.folder.exists():
            _export(made)
    return made


def _export(to: Exported) -> None:
    from vpr_dhe.export.exporting import export_model
    from vpr_dhe.training.trainable_extractor import new_model

    to.model.parent.mkdir(exist_ok=True)
    model = replace(new_model("cct_7_7x2_224", "gem", Size(64, 64), seed=0), name="tiny")
    first_block = {name: value for name, value in model.tensors.items() if not re.search(r"blocks\.[1-9]", name)}
    model = replace(model, architecture=replace(model.architecture, blocks=1), tensors=first_block)
    model.save(to.model)
    export_model(str(to.model), to.folder)


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """Twelve images that differ from one another, two of them in a sub-folder."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(7)
    for number in range(12):
        path = folder / ("sub" if number >= 10 else "") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        PIL.Image.fromarray(coarse).resize((80 + number, 60), PIL.Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(params=[1, 3])
def threads(request) -> Iterator[int]:
    """How many threads torch has."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
