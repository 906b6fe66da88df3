"""Typing mistakes are told before torch is imported, with the nearest name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import LAYOUTS
from vpr_dhe.datasets.pairs import PAIR_LAYOUTS
from vpr_dhe.evaluation.recall import Denominator
from vpr_dhe.index.codecs.registry import CODECS
from vpr_dhe.index.vectors.types import INDEX_TYPES
from vpr_dhe.runtime.choices import (
    AUTO,
    CODEC_NAMES,
    DENOMINATORS,
    INDEX_TYPE_NAMES,
    LAYOUT_NAMES,
    PAIR_LAYOUT_NAMES,
    RegistrationLayout,
    RegistrationNetworkName,
    TransferName,
)
from vpr_dhe.verification.estimators.cross_modal.registration.networks import LAYOUTS as REGISTRATION_LAYOUTS
from vpr_dhe.verification.estimators.cross_modal.registration.networks import NETWORKS
from vpr_dhe.verification.estimators.cross_modal.registration.transfer import TRANSFERS
from vpr_dhe.verification.estimators.registry import ESTIMATORS
from vpr_dhe.verification.names import AUTOMATIC, DEFAULT_VERIFIER, DHE, DHE_LITE, NO_VERIFIER

# Each with what the message must contain; PHOTOS and INDEX exist.
MISTAKES = (
    ("qurey INDEX PHOTOS", "Did you mean 'query'?"),
    ("query INDEX PHOTOS --verifer magsac", "--verifier"),
    ("query INDEX PHOTOS --verifier magsak", "did you mean 'magsac'?"),
    ("query INDX PHOTOS", "does not exist"),
    ("query INDEX PHOTS", "did you mean 'PHOTOS'?"),
    ("query INDEX PHOTOS --format jsn", "'json'"),
    ("query INDEX PHOTOS --times PHOTOS/position.csv", "did you mean 'positions.csv'?"),
    ("query INDEX PHOTOS --out nowhere/answers.json", "lies in a folder that does not exist"),
    ("index PHOTS --out new", "did you mean 'PHOTOS'?"),
    ("index PHOTOS --out new --model lite-vald", "did you mean 'lite-vlad'?"),
    ("index PHOTOS --out new --codec flaot16", "did you mean 'float16'?"),
    ("index PHOTOS --out new --index-type hnws", "did you mean 'hnsw'?"),
    ("index PHOTOS --out new --positions PHOTOS/postions.csv", "did you mean 'positions.csv'?"),
    ("index PHOTOS", "--out"),
    ("evaluate PHOTOS --verifier magsac,poselb", "did you mean 'poselib'?"),
    ("evaluate PHOTOS --layout foldres", "did you mean 'folders'?"),
    ("evaluate PHOTOS --denominator with-positives", "did you mean 'with-positive'?"),
    ("evaluate PHOTOS --recall-at one", "whole numbers"),
    ("evaluate PHOTOS --recall-at 0", "ranks start at 1"),
    ("frames --out new", "give one recording by --bag or --video"),
    ("demo --keep PHOTOS", "already exists; give the name of a new folder"),
    ("evaluate PHOTS", "did you mean 'PHOTOS'?"),
    ("evaluate-pairs PHOTOS --layout wraps", "did you mean 'warps'?"),
    ("align PHOTOS/0.png PHOTOS/00.png", "did you mean '0.png'?"),
    ("align PHOTOS/0.png PHOTOS/0.png --method magsacc", "did you mean 'magsac'?"),
    ("calibrate INDEX --data PHOTS", "did you mean 'PHOTOS'?"),
    ("serve INDEX --verifier posel", "did you mean 'poselib'?"),
    ("ros2 INDEX --image camera//image", "is not a topic name"),
    ("ros2 INDEX --odometry /odom", "add it, or leave --odometry out"),
    ("ros2 INDEX --camera-pose 0,0,0,0,0,0", "name that by --base-frame"),
    ("ros2 INDEX --sequence --prior /gps/fix", "leave one of them out"),
    ("ros2 INDEX --remap a=b", "FROM:=TO"),
    ("loops PHOTS", "did you mean 'PHOTOS'?"),
    ("train dhe-lite PHOTS --out run", "did you mean 'PHOTOS'?"),
    ("train descriptr PHOTOS", "Did you mean 'descriptor'"),
    ("export lite-vald --out new", "did you mean 'lite-vlad'?"),
    ("compact INDEX --codec binry", "did you mean 'binary'?"),
)
PROGRAM = """
import contextlib, io, json, sys
from vpr_dhe.cli import main
for line in json.load(sys.stdin):
    sys.argv = ["vpr-dhe", *line.split()]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    heavy = [name for name in ("torch", "faiss", "pandas", "sklearn", "cv2") if name in sys.modules]
    print(json.dumps([code, said.getvalue(), heavy]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, message and slow modules of each mistake, all made in one process."""
    place = tmp_path_factory.mktemp("place")
    for folder in ("PHOTOS", "INDEX"):
        (place / folder).mkdir()
    (place / "PHOTOS/positions.csv").write_text("image,x,y\n0.png,1,2\n")
    (place / "INDEX/manifest.json").write_text("{}")
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "PHOTOS/0.png")
    asked = json.dumps([line for line, _ in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=asked, capture_output=True, text=True, cwd=place, check=True
    )
    assert sorted(path.name for path in Path(place).iterdir()) == ["INDEX", "PHOTOS"]
    return dict(zip((line for line, _ in MISTAKES), map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("line", "words"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_at_once_with_the_nearest_name(answers, line, words):
    code, message, heavy = answers[line]
    assert (code, heavy) == (2, [])
    assert words in " ".join(message.split())
    assert "Traceback" not in message


def test_names_without_torch_are_those_of_the_registries():
    assert {DEFAULT_VERIFIER, DHE, DHE_LITE} <= ESTIMATORS.keys()
    assert not {NO_VERIFIER, AUTOMATIC} & ESTIMATORS.keys()
    assert {AUTO, *LAYOUTS} == set(LAYOUT_NAMES)
    assert (AUTO, *PAIR_LAYOUTS) == PAIR_LAYOUT_NAMES
    assert (AUTO, *CODECS) == CODEC_NAMES
    assert (AUTO, *INDEX_TYPES) == INDEX_TYPE_NAMES
    assert tuple(Denominator) == DENOMINATORS
    assert tuple(NETWORKS) == tuple(RegistrationNetworkName)
    assert tuple(REGISTRATION_LAYOUTS) == tuple(RegistrationLayout)
    assert set(TRANSFERS) == set(TransferName)
