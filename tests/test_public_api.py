"""The names that `vpr_dhe` exports, and that they take paths as text."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import vpr_dhe
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town


def test_the_public_names_are_these():
    assert vpr_dhe.__all__ == [
        "ImageRecord",
        "Localization",
        "Localizer",
        "PlaceIndex",
        "Resources",
        "SequenceFrame",
        "SequenceLocalizer",
        "Verifier",
        "VprDheError",
        "__version__",
        "adapt_index",
        "align",
        "build_verifier",
        "calibrate_index",
        "errors",
        "evaluate",
        "evaluate_pairs",
        "find_loops",
        "index_images",
        "load_extractor",
        "merge_indexes",
    ]
    assert dir(vpr_dhe) == vpr_dhe.__all__
    assert vpr_dhe.errors.VprDheError is vpr_dhe.VprDheError


@pytest.mark.parametrize("name", vpr_dhe.__all__)
def test_each_is_imported_when_asked_for(name):
    assert getattr(vpr_dhe, name) is not None


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'localise'"):
        _ = vpr_dhe.localise


def test_the_package_alone_imports_no_torch_and_is_typed():
    code = "import sys, vpr_dhe; sys.exit(' '.join({'torch', 'numpy', 'cv2'} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert files("vpr_dhe").joinpath("py.typed").is_file()


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:6]
    write_town(folder, town, database, town.query_cameras(2, 1, database), seed=1)
    return folder


def test_paths_may_be_text(town, tmp_path):
    images, photo = town / "images/test/database", str(sorted((town / "images/test/queries").iterdir())[0])
    names = sorted(path.name for path in images.iterdir())
    extractor = vpr_dhe.load_extractor("sift-vlad")
    index = vpr_dhe.PlaceIndex.create(str(tmp_path / "index"), extractor.spec, str(images), codec="float16")
    index.add([vpr_dhe.ImageRecord(name) for name in names], extractor)
    assert len(vpr_dhe.PlaceIndex.open(str(tmp_path / "index"))) == 6
    localizer = vpr_dhe.Localizer.open(str(tmp_path / "index"), rerank=3)
    answer = localizer.localize(photo, top_k=2)
    assert isinstance(answer, vpr_dhe.Localization)
    assert {match.image for match in answer.matches} <= set(names)
    (frame,) = vpr_dhe.SequenceLocalizer(localizer).stream([photo])
    assert frame.name == photo
    found = vpr_dhe.align(str(images / names[0]), str(images / names[0]))
    assert found.inliers > 50
    result = vpr_dhe.evaluate(str(town), verifiers=["none"], ranks=[1], cache=str(tmp_path / "cache"))
    assert result.settings.ranks == (1,)
    assert any((tmp_path / "cache").iterdir())
