"""The drive with bad stamps and covered frames: what it says of loops, and that none of them is false."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import loop_drive


def test_a_drive_is_what_it_says():
    drive = loop_drive.Drive.of(1200)
    steps = np.diff(drive.times_s)
    assert (len(drive.cameras), drive.lap, len(drive.blank)) == (1200, 720, 60)
    assert ((steps < 0) | (steps > 3000)).sum() >= 12
    assert len({(camera.x_m, camera.y_m) for camera in drive.cameras}) == 1200


@pytest.mark.slow
def test_bad_stamps_and_blank_frames_close_no_false_loop():
    outcomes = {one.min_probability: one for one in loop_drive.measure(loop_drive.Drive.of(360))}
    assert outcomes[0.9].false == 0
    assert outcomes[0.9].loops > 60
