"""A calibration lies with its index, and says so where it is damaged or for something else."""

from dataclasses import replace

import pytest
import torch
from calibrations import write_calibration

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import IndexBusyError, IndexDamagedError, IndexFormatError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.checking import check, repair
from vpr_dhe.index.manifest import lock_for_writing
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.storage import read_calibration
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import ImageRecord
from vpr_dhe.verification.estimators.resources import Resources

CONDITIONS = Conditions("thumbnail", "magsac", 20, learned="digest")
CALIBRATION = Calibration(
    CONDITIONS, 25.0, 0.5, 40, 13, 12, -1 / 3, {"score": 0.1, "margin": 2.0}, ((-1.0, 0.0), (0.5, 2 / 3))
)


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records[:8], thumbnail_extractor)
    return index


def test_it_comes_back_as_it_was_under_its_own_conditions_alone(index):
    assert read_calibration(index.folder, CONDITIONS) is None
    write_calibration(index.folder, CALIBRATION)
    write_calibration(index.folder, replace(CALIBRATION, conditions=replace(CONDITIONS, verifier="none")))
    assert read_calibration(index.folder, CONDITIONS) == CALIBRATION
    for other in ({"fingerprint": "x"}, {"verifier": "poselib"}, {"rerank": 100}, {"learned": None}, {"codec": "int8"}):
        assert read_calibration(index.folder, replace(CONDITIONS, **other)) is None


def test_the_index_keeps_it_whatever_is_done_to_the_images(index, thumbnail_extractor):
    write_calibration(index.folder, CALIBRATION)
    index.add([ImageRecord("08.png"), ImageRecord("09.png")], thumbnail_extractor)
    index.remove(index.ids[:3])
    index.compact(codec="int8")
    assert read_calibration(index.folder, CONDITIONS) == CALIBRATION
    assert check(index.folder).damaged == ()


def test_maps_that_are_stored_in_another_way_need_another(index):
    def conditions(verifier: str) -> Conditions:
        return Conditions.of(index.manifest, verifier, 20, Resources(None), "inliers")

    for verifier in ("magsac", "none"):
        write_calibration(index.folder, replace(CALIBRATION, conditions=conditions(verifier)))
    index.compact(codec="int8")
    assert read_calibration(index.folder, conditions("magsac")) is None
    # Nothing looks at local maps where nothing is verified.
    assert read_calibration(index.folder, conditions("none")) is not None


def test_damage_is_found_and_dropped(index):
    write_calibration(index.folder, CALIBRATION)
    path = index.folder / "calibrations" / "magsac.json"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    with pytest.raises(IndexDamagedError, match="checksum; calibrate again"):
        read_calibration(index.folder, CONDITIONS)
    assert check(index.folder).damaged == ("calibrations/magsac.json",)
    assert repair(index.folder) == 0
    assert check(index.folder).damaged == ()
    assert read_calibration(index.folder, CONDITIONS) is None


def test_other_versions_and_other_writers_are_told_apart(index, monkeypatch):
    with lock_for_writing(index.folder), pytest.raises(IndexBusyError):
        write_calibration(index.folder, CALIBRATION)
    monkeypatch.setattr("vpr_dhe.localization.calibration.storage.FORMAT", "vpr-dhe calibration 99")
    write_calibration(index.folder, CALIBRATION)
    monkeypatch.undo()
    with pytest.raises(IndexFormatError, match="calibrate again"):
        read_calibration(index.folder, CONDITIONS)
    assert check(index.folder).damaged == ()
    monkeypatch.setattr(
        "vpr_dhe.localization.calibration.storage.asdict", lambda calibration: {"conditions": {}, "prior": 0.5}
    )
    write_calibration(index.folder, CALIBRATION)
    with pytest.raises(IndexFormatError, match=r"another version .* --verifier magsac --rerank 20"):
        read_calibration(index.folder, CONDITIONS)


def test_other_weights_of_a_verifier_are_other_conditions(index):
    extractor = load_extractor("sift-vlad")
    head = extractor.model_file.part("head")
    network = NetworkFile("alto", {}, "", "", {"weight": torch.ones(2)})
    resources = Resources(extractor, {"alto": network})

    def learned(verifier: str) -> str | None:
        return Conditions.of(index.manifest, verifier, 20, resources, "inliers").learned

    before = learned("dhe-lite")
    extractor.model_file = extractor.model_file.with_head("dhe-lite", {name: part + 1 for name, part in head.items()})
    assert None not in (before, learned("alto"))
    assert learned("dhe-lite") != before
    assert (learned("magsac"), learned("none")) == (None, None)
