"""Streams of frames, localized each alone or as one traverse."""

from dataclasses import replace
from pathlib import Path

import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import MetricPosition
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.localize_frames import follow_frames, localize_frames


@pytest.fixture
def localizer(photo_folder, tmp_path, thumbnail_extractor, verifier) -> Localizer:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, rerank=12)


@pytest.fixture
def frames(photo_folder, tmp_path) -> list[SequenceFrame]:
    """Three frames, of which the second cannot be read."""
    (tmp_path / "broken.png").write_text("no pixels")
    paths = (photo_folder / "00.png", tmp_path / "broken.png", photo_folder / "02.png")
    return [SequenceFrame(Path(path), float(number), name=f"{number}") for number, path in enumerate(paths)]


def test_frames_alone_answer_as_single_queries_do(localizer, frames, photo_folder):
    found = list(localize_frames(localizer, frames, top_k=3))
    assert [(frame.number, frame.name, frame.timestamp_s) for frame in found] == [
        (0, "0", 0.0),
        (1, "1", 1.0),
        (2, "2", 2.0),
    ]
    assert [frame.error is None for frame in found] == [True, False, True]
    assert all(frame.belief is None for frame in found)
    alone = localizer.localize(photo_folder / "02.png", top_k=3)
    assert found[2].localization is not None
    assert [match.image for match in found[2].localization.matches] == [match.image for match in alone.matches]


def test_frames_of_a_traverse_get_beliefs(localizer, frames):
    found = list(follow_frames(localizer, frames, top_k=3))
    assert [frame.belief is None for frame in found] == [False, True, False]
    assert found[2].belief is not None
    assert found[2].belief.places[0].image == "02.png"
    with pytest.raises(BadInputError, match="position"):
        list(follow_frames(localizer, frames, max_step_m=5.0))


@pytest.mark.parametrize("bound", ["max_step_m", "max_speed_m_s"])
def test_what_lies_beyond_the_bound_is_improbable(photo_folder, tmp_path, thumbnail_extractor, verifier, bound):
    """Photos 100 m apart, and three frames at intervals of a second: 0, 1, and then a jump of 800 m."""
    records = [
        replace(record, position=MetricPosition(100.0 * number, 0.0))
        for number, record in enumerate(read_split(photo_folder).records)
    ]
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(records, thumbnail_extractor)
    localizer = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, rerank=12)
    frames = [SequenceFrame(photo_folder / f"0{number}.png", float(second)) for second, number in enumerate((0, 1, 9))]

    def odds_of_the_jump(bound_m: float) -> float:
        *_, last = follow_frames(localizer, frames, top_k=12, **{bound: bound_m})
        assert last.belief is not None
        probability_of = {place.image: place.probability for place in last.belief.places}
        return probability_of["09.png"] / probability_of["02.png"]

    assert odds_of_the_jump(110.0) < 0.5 * odds_of_the_jump(1000.0)
