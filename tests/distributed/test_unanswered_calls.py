"""Calls of shards that fail keep nothing of a query alive, as their errors do by the frames of their tracebacks."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from vpr_dhe.distributed import replicas
from vpr_dhe.distributed.sharded_index import ShardedIndex
from vpr_dhe.distributed.sharding import Directory
from vpr_dhe.errors import IndexDamagedError, ShardsMissingError
from vpr_dhe.index.place_index import PlaceIndex

ray = pytest.importorskip("ray")
SHARDS = ("north", "south")


@dataclass(frozen=True)
class Failing:
    """Reference to the result of a call, which is an error."""

    error: Callable[[], Exception]


@pytest.fixture
def _no_cluster(monkeypatch) -> None:
    """Ray without a cluster."""

    def get(reference: Failing, timeout: float):
        raise reference.error()

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(replicas, "_PAUSE_S", 0.01)


def restarting() -> Exception:
    return ray.exceptions.ActorUnavailableError("restarting", b"0" * 16)


def killed() -> Exception:
    return ray.exceptions.ActorDiedError()


def damaged() -> Exception:
    """An error of an actor, as Ray hands it on."""
    return ray.exceptions.RayTaskError("search", "where it was raised", IndexDamagedError("segment 3"))


@pytest.mark.usefixtures("_no_cluster", "no_garbage_collector")
@pytest.mark.parametrize(
    ("missing", "error", "raised"),
    [
        ("report", restarting, None),
        ("report", killed, None),
        ("fail", restarting, ShardsMissingError),
        ("report", damaged, IndexDamagedError),
    ],
)
def test_a_query_is_let_go_when_shards_fail(missing, error, raised, photo_folder, thumbnail_extractor, tmp_path):
    manifest = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder).manifest
    shards = {name: replicas.Replicas([object()], (), 0.05) for name in SHARDS}
    index = ShardedIndex(tmp_path / "index", manifest, shards, Directory([]), verifier=None, missing=missing)

    def ask() -> tuple[weakref.ref, type | None, str]:
        image = np.zeros((20, 20, 3), np.uint8)
        try:
            missing = index.call(dict.fromkeys(SHARDS, lambda _: Failing(error))).missing
        except (ShardsMissingError, IndexDamagedError) as failure:
            return weakref.ref(image), type(failure), "".join(getattr(failure, "__notes__", ()))
        return weakref.ref(image), None, ", ".join(sorted(missing))

    image, found, said = ask()
    assert found is raised
    assert image() is None
    if raised is None:
        assert said == "north, south"
    elif error is damaged:
        assert "where it was raised" in said


def test_replicas_are_called_in_turn_and_failed_ones_last(monkeypatch):
    called: list[str] = []

    def get(actor: str, timeout: float) -> str:
        called.append(actor)
        if actor == "unreachable":
            raise restarting()
        return actor

    monkeypatch.setattr(ray, "get", get)
    shard = replicas.Replicas(["first", "unreachable", "last"], (), timeout_s=60.0)
    answered = [shard.call(lambda actor: actor) for _ in range(6)]
    assert set(answered) == {"first", "last"}
    assert called.count("unreachable") == 1
    assert called.count("first") >= 2
    assert called.count("last") >= 2
