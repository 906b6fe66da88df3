"""Reading ahead: order, errors, and what becomes of the processes that do it."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from waiting import wait_until

from vpr_dhe.errors import ImageError, WorkerLostError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.runtime.prefetching import read_ahead, reading_processes


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    """Thirty images of different sizes, of which the eighth is broken."""
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    paths = [tmp_path / f"{number:02d}.png" for number in range(30)]
    for number, path in enumerate(paths):
        picture.resize((30 + number, 40)).save(path)
    paths[7].write_bytes(b"broken")
    return paths


def test_reading_ahead_keeps_the_order_and_the_errors(paths):
    decoded = list(read_ahead(decode_image, paths))
    assert isinstance(decoded[7], ImageError)
    widths = [image.shape[1] for image in decoded if not isinstance(image, ImageError)]
    assert widths == [30 + number for number in range(30) if number != 7]


@pytest.mark.slow
def test_processes_read_what_threads_read(paths):
    # More than there is shared memory for at once, and images that do not fit into their part of it.
    broad = [partial(np.full, (14 << 20) + number, number, np.uint8) for number in range(9)]
    with reading_processes(2, ["vpr_dhe.images.decoding"]) as by_processes:
        for one, other in zip(read_ahead(decode_image, 3 * paths), by_processes(decode_image, 3 * paths), strict=True):
            if isinstance(one, ImageError):
                assert isinstance(other, ImageError)
                assert str(other) == str(one)
            else:
                np.testing.assert_array_equal(other, one)
                assert other.flags.writeable
        abandoned = by_processes(decode_image, 3 * paths)
        next(abandoned)
        abandoned.close()
        for number, array in enumerate(by_processes(partial.__call__, broad)):
            assert (len(array), array[0], array[-1]) == ((14 << 20) + number, number, number)
        with pytest.raises(WorkerLostError, match="use fewer"):
            list(by_processes(os._exit, [1]))


READ_FOR_EVER = """
import itertools, signal, sys, time
from vpr_dhe.runtime.prefetching import reading_processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where tests run in the background
if __name__ == "__main__":
    with reading_processes(2, []) as by_processes:
        try:
            for done in by_processes(time.sleep, itertools.repeat(0.01)):
                print("reading", flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_stays_behind(tmp_path, sent):
    (tmp_path / "read.py").write_text(READ_FOR_EVER)
    begun = subprocess.Popen(
        [sys.executable, tmp_path / "read.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert begun.stdout.readline() == "reading\n"
    # As a terminal does it: to all of them.
    os.killpg(begun.pid, sent) if sent == signal.SIGINT else begun.kill()
    out, errors = begun.communicate(timeout=30)
    if sent == signal.SIGINT:
        assert (begun.returncode, out.splitlines()[-1], errors) == (0, "interrupted", "")
    wait_until(lambda: not of_session(begun.pid), 30.0)  # processes do not outlive the one that started them


def of_session(leader: int) -> list[str]:
    """Processes of a session that are not at their end already."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, session = rest.split()[:4]
        if int(session) == leader and state != "Z":
            found.append(name)
    return found
