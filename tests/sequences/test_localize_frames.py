"""Streams of frames, localized each alone or as one traverse."""

from pathlib import Path

import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
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
