"""The cache of verifiers: hit, miss, limit, damage, and several processes."""

import multiprocessing
import os
from pathlib import Path

import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.rows import Digest
from vpr_dhe.index.verifier_cache import FOLDER, LIMIT_VARIABLE, VerifierCache

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / FOLDER).rglob("*") if path.is_file())


def test_what_was_written_is_read_by_kind_and_content(folder):
    cache = VerifierCache(folder)
    assert cache.read("corners", A) is None
    cache.write("corners", A, b"first")
    cache.write("other", A, b"second")
    assert VerifierCache(folder).read("corners", A) == b"first"
    assert VerifierCache(folder).read("other", A) == b"second"
    assert VerifierCache(folder).read("corners", B) is None


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 40])
def test_damaged_files_are_misses_and_are_deleted(folder, damage):
    cache = VerifierCache(folder)
    cache.write("corners", A, b"x" * 32)
    (path,) = files(folder)
    path.write_bytes(damage)
    assert cache.read("corners", A) is None
    assert files(folder) == []
    cache.write("corners", A, b"again")
    assert cache.read("corners", A) == b"again"


def test_a_flipped_bit_is_a_miss(folder):
    cache = VerifierCache(folder)
    cache.write("corners", A, b"x" * 32)
    (path,) = files(folder)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.read("corners", A) is None


def test_the_files_used_longest_ago_make_room(folder):
    cache = VerifierCache(folder, max_bytes=30 * 108)
    contents = [Digest.of(bytes([number])) for number in range(30)]
    for number, content in enumerate(contents):
        cache.write("corners", content, b"x" * 100)
        os.utime(folder / FOLDER / "corners" / f"{content.high:016x}{content.low:016x}", (number, number))
    assert cache.read("corners", contents[0]) is not None  # used now
    cache.write("corners", A, b"x" * 100)
    assert sum(path.stat().st_size for path in files(folder)) <= 0.9 * 30 * 108 + 108
    assert cache.read("corners", A) is not None
    assert cache.read("corners", contents[0]) is not None
    assert cache.read("corners", contents[1]) is None
    assert cache.read("corners", contents[29]) is not None


def test_the_limit_counts_what_others_have_written(folder):
    VerifierCache(folder).write("corners", A, b"x" * 100)
    VerifierCache(folder, max_bytes=150).write("other", B, b"x" * 100)
    assert [path.parent.name for path in files(folder)] == ["other"]


def test_what_is_larger_than_the_limit_is_not_cached(folder):
    VerifierCache(folder, max_bytes=50).write("corners", A, b"x" * 100)
    assert files(folder) == []


@pytest.mark.parametrize("given", ["many", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_explained(folder, monkeypatch, given):
    monkeypatch.setenv(LIMIT_VARIABLE, given)
    with pytest.raises(BadInputError, match=f"{LIMIT_VARIABLE} is '{given}'; expected a number of gigabytes"):
        VerifierCache(folder).write("corners", A, b"x")


def test_drop_and_retain(folder):
    cache = VerifierCache(folder)
    for kind in ("corners", "other"):
        for content in (A, B, C):
            cache.write(kind, content, b"x")
    cache.drop([A])
    assert [cache.read(kind, A) for kind in ("corners", "other")] == [None, None]
    assert len(files(folder)) == 4
    (folder / FOLDER / "corners" / "left.1234.writing").write_bytes(b"")
    cache.retain([C])
    assert [path.name for path in files(folder)] == [f"{C.high:016x}{C.low:016x}"] * 2


def test_without_a_folder_there_is_nothing_to_do(tmp_path):
    cache = VerifierCache(tmp_path / "gone")
    assert not cache.is_present
    cache.drop([A])
    cache.retain([A])
    cache.write("corners", A, b"x")
    assert cache.read("corners", A) is None
    assert not (tmp_path / "gone").exists()


def test_it_goes_on_after_the_folder_was_deleted(folder):
    cache = VerifierCache(folder)
    cache.write("corners", A, b"x")
    for path in files(folder):
        path.unlink()
    (folder / FOLDER / "corners").rmdir()
    (folder / FOLDER).rmdir()
    cache.write("corners", B, b"y")
    assert cache.read("corners", B) == b"y"


def test_where_nothing_can_be_written_nothing_is_cached(folder):
    (folder / FOLDER).write_text("a file where the folder would be")
    cache = VerifierCache(folder)
    cache.write("corners", A, b"x")
    assert cache.read("corners", A) is None
    cache.drop([A])
    cache.retain([A])


def test_it_is_tried_again_once_there_may_be_room(folder, monkeypatch):
    monkeypatch.setattr("vpr_dhe.index.verifier_cache._PAUSE", 3)
    in_the_way = folder / FOLDER
    in_the_way.write_text("as a full disk would be")
    cache = VerifierCache(folder)
    cache.write("corners", A, b"x")
    in_the_way.unlink()
    written = []
    for _ in range(5):
        cache.write("corners", A, b"x")
        written.append(cache.read("corners", A) is not None)
    assert written == [False, False, False, True, True]


def _write_and_read(folder: Path, started, wrong, read) -> None:
    cache = VerifierCache(folder, max_bytes=20 * 1000)
    started.wait()
    for number in range(300):
        content = Digest.of(bytes([number % 40]))
        expected = bytes([number % 40]) * 900
        found = cache.read("corners", content)
        if found is not None:
            read.value += 1
            wrong.value += found != expected
        cache.write("corners", content, expected)


def test_two_processes_never_read_half_a_file(folder):
    context = multiprocessing.get_context("fork")
    started, wrong, read = context.Barrier(2), context.Value("i", 0), context.Value("i", 0)
    workers = [context.Process(target=_write_and_read, args=(folder, started, wrong, read)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (wrong.value, read.value > 0) == (0, True)
    assert not [path for path in files(folder) if path.suffix == ".writing"]
    # Two that make room at once may miss what the other writes meanwhile.
    assert sum(path.stat().st_size for path in files(folder)) <= 2 * 20 * 1000
