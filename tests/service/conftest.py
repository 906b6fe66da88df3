"""A service over twelve photos, asked within this process."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.features.base import Extractor
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import ImageRecord
from vpr_dhe.service.app import build_app
from vpr_dhe.service.limits import Limits
from vpr_dhe.service.place_service import PlaceService
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier


class GatedExtractor(Extractor):
    """Another extractor behind a gate: while that is shut, whoever extracts waits."""

    def __init__(self, extractor: Extractor) -> None:
        self.spec, self._extractor = extractor.spec, extractor
        self.gate, self.reached = Event(), Event()
        self.gate.set()

    def extract(self, images):
        self.reached.set()
        assert self.gate.wait(20)
        return self._extractor.extract(images)


@dataclass
class Running:
    """A service in this process; `ask` runs a conversation with it from its start to its end."""

    folder: Path
    index: PlaceIndex
    localizer: Localizer
    extractor: GatedExtractor
    service: PlaceService
    token: str | None = None

    def ask(self, conversation: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def talk() -> Any:
            transport = httpx.ASGITransport(build_app(self.service, self.token), raise_app_exceptions=False)
            async with self.service, httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await conversation(client)

        return asyncio.run(talk())

    def post(self, path: str, content: bytes = b"", **options: Any) -> httpx.Response:
        return self.ask(lambda client: client.post(path, content=content, **options))

    def get(self, path: str) -> httpx.Response:
        return self.ask(lambda client: client.get(path))

    def records(self) -> tuple[ImageRecord, ...]:
        """The images of the folder."""
        return read_split(self.folder).records

    def limited(self, **limits: Any) -> "Running":
        """The same with other limits."""
        self.service = PlaceService(self.localizer, "magsac", Limits(**limits))
        return self


@pytest.fixture
def running(photo_folder, tmp_path, thumbnail_extractor) -> Running:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    extractor = GatedExtractor(thumbnail_extractor)
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), extractor)
    return Running(photo_folder, index, localizer, extractor, PlaceService(localizer, "magsac"))


@pytest.fixture
def new_photo() -> bytes:
    """A photo that no index holds yet."""
    file = io.BytesIO()
    coarse = PIL.Image.fromarray(np.random.default_rng(99).integers(0, 256, (6, 8, 3), np.uint8))
    coarse.resize((120, 90), PIL.Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
