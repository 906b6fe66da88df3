"""`index` and how images are extracted: precision, compiling, and processes that decode."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vpr_dhe.index.place_index import PlaceIndex

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tiny_model(exported) -> Path:
    return exported.model


@pytest.mark.usefixtures("native_bf16")
def test_options_that_nothing_can_be_made_of_are_refused(run, photo_folder, tmp_path):
    code, _, errors = run("index", photo_folder, "--out", tmp_path / "i", "--ray", "auto", "--workers", 2)
    assert (code, "use one of them" in errors) == (2, True)
    code, _, errors = run("index", photo_folder, "--out", tmp_path / "i", "--workers", 3_000_000)
    assert (code, "expected 0 to 256" in errors, errors.count("\n")) == (2, True, 1)
    for options in (("--precision", "bf16"), ("--compile",)):
        code, _, errors = run("index", photo_folder, "--out", tmp_path / "i", "--model", "sift-vlad", *options)
        assert (code, "not a network in torch" in errors, errors.count("\n")) == (2, True, 1)


@pytest.mark.slow
def test_queries_in_single_precision_find_what_was_indexed_in_bfloat16(run, tiny_model, photo_folder, tmp_path):
    index = tmp_path / "index"
    code, _, _ = run("index", photo_folder, "--out", index, "--model", tiny_model, "--precision", "bf16")
    assert code == 0
    assert run("index", photo_folder, "--out", index, "--add")[0] == 0
    code, out, _ = run("query", index, photo_folder / "03.png", "--verifier", "none", "--format", "csv", "--top-k", 1)
    answer = dict(zip(*(line.split(",") for line in out.splitlines()), strict=True))
    assert (code, answer["image"]) == (0, "03.png")
    assert 0.999 < float(answer["similarity"]) < 1.001
    plain = tmp_path / "plain"
    assert run("index", photo_folder, "--out", plain, "--model", tiny_model)[0] == 0
    stored = [PlaceIndex.open(one).descriptors([0, 1, 2]) for one in (index, plain)]
    assert not torch.equal(*stored)


@pytest.mark.slow
def test_processes_make_the_same_index_bit_by_bit(run, tiny_model, photo_folder, tmp_path):
    (photo_folder / "05.png").write_bytes(b"broken")
    made: list[PlaceIndex] = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        options = ("--model", tiny_model, "--workers", workers, "--codec", "float16", "--batch-size", 4)
        code, _, errors = run("index", photo_folder, "--out", out, *options)
        assert code == 0
        assert any(line.startswith("skipped 05.png") for line in errors.splitlines())
        made.append(PlaceIndex.open(out))
    one, other = made
    assert len(one) == 11
    assert one.ids.tolist() == other.ids.tolist()
    assert [one.image(id) for id in one.ids.tolist()] == [other.image(id) for id in one.ids.tolist()]
    assert torch.equal(one.descriptors(one.ids), other.descriptors(one.ids))
    assert torch.equal(one.local_maps(one.ids), other.local_maps(one.ids))


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_shows_no_traceback(photo_folder, tmp_path):
    # Where tests run in the background, SIGINT is ignored, and what they start inherits that.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import vpr_dhe.__main__"
    for number in range(2000):
        (photo_folder / f"more-{number}.png").hardlink_to(photo_folder / "00.png")
    command = [sys.executable, "-c", start, "index", photo_folder, "--out", tmp_path / "index", "--workers", 2]
    command += ["--codec", "float16"]
    with subprocess.Popen(
        [*map(str, command)], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        segments = tmp_path / "index" / "segments"
        while not any(file.stat().st_size for file in segments.glob("*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "run the command again to continue" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert 0 < len(PlaceIndex.open(tmp_path / "index")) < 2012


@pytest.mark.slow
def test_compiled_networks_describe_alike_and_need_a_compiler(tiny_model, photo_folder, tmp_path):
    asked = (
        "import sys, torch; from pathlib import Path; from vpr_dhe.images.decoding import decode_image;"
        "from vpr_dhe.features.extractor import load_extractor;"
        "photos = [decode_image(path) for path in sorted(Path(sys.argv[2]).glob('*.png'))];"
        "one, other = (load_extractor(sys.argv[1], compiled=compiled).extract(photos) for compiled in (False, True));"
        "print(max(float((a.local_map - b.local_map).abs().max()) for a, b in zip(one, other)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", asked, str(tiny_model), str(photo_folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**environment, "CXX": "/nonexistent/compiler"}
    )
    assert "install a C++ compiler, or leave out --compile" in done.stderr.splitlines()[-1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4
