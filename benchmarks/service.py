"""Reliability of the service under concurrent load, kills and restarts.

    python benchmarks/service.py --out service.json

The service is `vpr-dhe serve` on this machine's loopback. Some of the requests are broken on purpose and must be
refused; every other answer is compared with that of `Localizer` for the same photo in this process. Then images are
added until the service is killed with SIGKILL, again and again; every acknowledged image must be in the index, and be
found once the service runs again.
"""

import argparse
import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from measuring import write_result
from PIL import Image as PillowImage

from vpr_dhe.index.checking import check
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.report.tables.answer_documents import answer_document
from vpr_dhe.report.tables.answers import Answer

IMAGES = 60
BROKEN_SHARE = 0.01
MAX_LIFE_S = 4.0
TOKEN = "a token for this run"
# The service may extract the same photo on another number of threads.
SIMILARITY_TOLERANCE = 1e-5


def photo(seed: int) -> bytes:
    """Make a unique JPEG file."""
    file = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    PillowImage.fromarray(coarse).resize((320, 240), PillowImage.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def make_index(folder: Path) -> Path:
    """Index some photos with the command line."""
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        (folder / "photos" / f"{number:03d}.jpg").write_bytes(photo(number))
    command = [sys.executable, "-m", "vpr_dhe", "index", str(folder / "photos"), "--out", str(folder / "index")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "index"


@contextmanager
def served(index: Path, rerank: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a service in a fresh process, and yield its address once it is ready."""
    command = [sys.executable, "-m", "vpr_dhe", "serve", str(index), "--port", "0", "--rerank", str(rerank)]
    command += ["--timeout-s", "300"]
    environment = os.environ | {"VPR_DHE_TOKEN": TOKEN}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://\S+", process.stderr.readline())
            if address is None:
                raise SystemExit(f"the service did not start: {process.stderr.read()}")
            httpx.get(f"{address[0]}/readyz", timeout=600).raise_for_status()
            yield process, address[0]
        finally:
            process.kill()


@dataclass
class Load:
    """Counts of the answers."""

    wrong: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def broken(number: int) -> bytes:
    """Make a request body that is no photo: empty, text, or half a file."""
    return (b"", b"these are words", photo(number)[:1500])[number % 3]


async def send_requests(address: str, requests: int, concurrency: int, expected: list[dict[str, Any]]) -> Load:
    """Send all requests, so many at a time."""
    load, turn = Load(), asyncio.Semaphore(concurrency)
    rng = random.Random(0)
    chosen = [rng.randrange(len(expected)) for _ in range(requests)]
    bad = set(rng.sample(range(requests), int(BROKEN_SHARE * requests)))

    async def one(client: httpx.AsyncClient, number: int) -> None:
        content = broken(number) if number in bad else photo(chosen[number])
        async with turn:
            started = time.perf_counter()
            try:
                response = await client.post("/v1/localize", content=content)
            except httpx.HTTPError as error:
                load.lost.append(f"{number}: {error!r}")
                return
            load.seconds.append(time.perf_counter() - started)
        load.statuses[response.status_code] += 1
        if number in bad:
            fine = response.status_code == 422 and list(response.json()) == ["error"]
        else:
            fine = response.status_code == 200 and same(response.json(), expected[chosen[number]])
        if not fine:
            load.wrong.append(f"{number}: {response.status_code} {response.text[:300]}")

    async with httpx.AsyncClient(base_url=address, timeout=600) as client:
        await asyncio.gather(*(one(client, number) for number in range(requests)))
    return load


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Compare two answers to one query, except for timings and the last digits of similarities."""
    pairs = list(zip(answer["matches"], expected["matches"], strict=False))
    exact = ("rank", "image", "score", "inliers", "homography", "position", "probability")
    return len(answer["matches"]) == len(expected["matches"]) and all(
        all(found[key] == right[key] for key in exact)
        and abs(found["similarity"] - right["similarity"]) < SIMILARITY_TOLERANCE
        for found, right in pairs
    )


def gauge(address: str, name: str) -> float:
    """Read one value of the service's metrics."""
    text = httpx.get(f"{address}/metrics", timeout=60).text
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))


def measure_load(index: Path, requests: int, concurrency: int, rerank: int) -> dict[str, Any]:
    """Send many requests at once, and compare their answers."""
    localizer = Localizer.open(index, rerank=rerank)
    files = [index.parent / "photos" / f"{number:03d}.jpg" for number in range(IMAGES)]
    expected = [json.loads(json.dumps(answer_document(Answer("", localizer.localize(path))))) for path in files]
    with served(index, rerank) as (_, address):
        # The first queries load what later ones find loaded.
        warm = asyncio.run(send_requests(address, 2 * concurrency, concurrency, expected))
        before = gauge(address, "process_resident_memory_bytes")
        started = time.perf_counter()
        load = asyncio.run(send_requests(address, requests, concurrency, expected))
        seconds = time.perf_counter() - started
        after = gauge(address, "process_resident_memory_bytes")
        batches, extracted = (gauge(address, f"vpr_dhe_batch_images_{what}") for what in ("count", "sum"))
    for what, found in (("lost", load.lost), ("wrong", load.wrong + warm.wrong)):
        if found:
            raise SystemExit(f"{len(found)} of {requests} requests are {what}, such as {found[0]}")
    return {
        "requests": requests,
        "concurrency": concurrency,
        "rerank": rerank,
        "statuses": dict(load.statuses),
        "lost": 0,
        "wrong": 0,
        "per_second": requests / seconds,
        "median_s": float(np.median(load.seconds)),
        "p95_s": float(np.percentile(load.seconds, 95)),
        "images_per_batch": extracted / batches,
        "memory_before_mb": before / 2**20,
        "memory_after_mb": after / 2**20,
    }


def add_until_killed(address: str, life: int, first: int, acknowledged: dict[str, int]) -> None:
    """Add images one by one until the service is gone, and note the acknowledged ones."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address, headers=headers, timeout=600) as client:
        for number in range(first, first + 1000, 2):
            seed, name = 10_000 * (life + 1) + number, f"added-{life}/{number:04d}.jpg"
            try:
                response = client.post("/v1/images", content=photo(seed), params={"name": name})
            except httpx.HTTPError:
                return
            if response.status_code != 201:
                raise SystemExit(f"{name} was not added: {response.status_code} {response.text}")
            acknowledged[name] = seed


def measure_kills(index: Path, kills: int, rerank: int) -> dict[str, Any]:
    """Let two clients add images until the service is killed, and check all that was acknowledged."""
    acknowledged: dict[str, int] = {}
    rng = random.Random(0)
    found = 0
    for life in range(kills + 1):
        with served(index, rerank) as (process, address):
            for name in rng.sample(sorted(acknowledged), min(5, len(acknowledged))):
                answer = httpx.post(f"{address}/v1/localize", content=photo(acknowledged[name]), timeout=600).json()
                if answer["matches"][0]["image"] != name:
                    raise SystemExit(f"{name} was acknowledged, and is not found")
                found += 1
            if life < kills:
                known = len(acknowledged)
                callers = [
                    threading.Thread(target=add_until_killed, args=(address, life, first, acknowledged))
                    for first in (0, 1)
                ]
                for caller in callers:
                    caller.start()
                # Not before the first acknowledgement, or a slow machine tests nothing.
                while len(acknowledged) == known:
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, MAX_LIFE_S))
                process.kill()
                for caller in callers:
                    caller.join()
        if damaged := check(index).damaged:
            raise SystemExit(f"the kill left damage behind: {damaged}")
        stored = PlaceIndex.open(index)
        if lost := [name for name in acknowledged if stored.find(name) is None]:
            raise SystemExit(f"{len(lost)} acknowledged images are lost, such as {lost[0]}")
    return {"kills": kills, "acknowledged": len(acknowledged), "lost": 0, "asked_for_again_and_found": found}


def main() -> None:
    """Query, compare, kill, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rerank", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-service-") as name:
        index = make_index(Path(name))
        load = measure_load(index, arguments.requests, arguments.concurrency, arguments.rerank)
        print(json.dumps(load, indent=2), flush=True)
        kills = measure_kills(index, arguments.kills, arguments.rerank)
    print(json.dumps(kills, indent=2))
    write_result(arguments.out, "service", {"load": load, "kills": kills})


if __name__ == "__main__":
    main()
