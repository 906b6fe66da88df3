"""Guard of speed: which ratios are marked."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from guard import lines_of


def test_only_ratios_that_grew_by_more_than_a_fifth_are_marked():
    found = {"grew": 1.3, "noise": 1.1, "fell": 0.5, "new": 9.0}

    lines = lines_of(found, {"grew": 1.0, "noise": 1.0, "fell": 1.0, "gone": 1.0})

    assert {line[0]: line[3] for line in lines} == {"grew": "slower", "noise": "", "fell": "", "new": ""}
