"""Extraction: once, whole files only, and on from where it stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import small_frames

from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.geography.position_table import read_positions
from vpr_dhe.recordings.base import ImageFile, RecordedFrame, png_file
from vpr_dhe.recordings.extraction import ExtractedFrames, extract_frames
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.records import GeoPosition


class Recording:
    """Frames a second apart; `broken` ones cannot be decoded, and `ends_at` is where somebody loses patience."""

    name = "drive/camera"
    keeps_unix_time = True
    announced_frames = 6

    def __init__(self, broken: tuple[int, ...] = (), ends_at: int | None = None, identity: str = "a drive") -> None:
        self.identity, self._broken, self._ends_at = identity, broken, ends_at
        self.decoded: list[int] = []

    def frames(self) -> Iterator[RecordedFrame]:
        for number in range(6):
            if number == self._ends_at:
                raise KeyboardInterrupt
            position = GeoPosition(48 + number / 1000, 2.0) if number % 2 else None
            yield RecordedFrame(number, 1.5e9 + number, position, lambda: self._image(number))  # noqa: B023

    def _image(self, number: int) -> ImageFile:
        self.decoded.append(number)
        if number in self._broken:
            raise ImageError("torn")
        return png_file(small_frames()[number])


def content_of(extracted: ExtractedFrames) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in extracted.folder.iterdir()}


def test_frames_lie_beside_a_table_that_is_read_as_positions(tmp_path):
    extracted = extract_frames(Recording(), Selection(every=2), tmp_path)
    assert extracted.folder == tmp_path / "drive/camera"
    assert sorted(path.name for path in extracted.folder.glob("*.png")) == [
        f"0000000{place}.png" for place in (0, 2, 4)
    ]
    rows = read_positions(extracted.table).rows
    assert [row.timestamp_s for row in rows] == [1.5e9, 1.5e9 + 2, 1.5e9 + 4]


def test_an_interrupted_extraction_goes_on_and_ends_the_same(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract_frames(Recording(ends_at=4), Selection(), tmp_path / "a")
    (tmp_path / "a/drive/camera/00000004.png.writing").write_bytes(b"half of")
    again = Recording()
    resumed = extract_frames(again, Selection(), tmp_path / "a")
    assert again.decoded == [4, 5]
    whole = extract_frames(Recording(), Selection(), tmp_path / "b")
    assert content_of(resumed) == content_of(whole)
    assert (resumed.seen, resumed.unplaced) == (whole.seen, whole.unplaced) == (6, 3)


def test_what_is_complete_is_not_read_again(tmp_path):
    extract_frames(Recording(), Selection(), tmp_path)
    assert extract_frames(Recording(ends_at=0), Selection(), tmp_path).seen is None


def test_damaged_frames_are_named_or_an_error(tmp_path):
    told: list[tuple[str, str]] = []
    recording = Recording(broken=(1, 3))
    extracted = extract_frames(recording, Selection(), tmp_path, skipped=lambda *what: told.append(what))
    assert told == [("frame 1", "torn"), ("frame 3", "torn")]
    assert len(list(extracted.folder.glob("*.png"))) == 4
    with pytest.raises(ImageError, match="frame 1 of a drive: torn"):
        extract_frames(recording, Selection(), tmp_path / "strict", strict=True)
    with pytest.raises(DatasetError, match=r"none of a drive could be kept \(torn\)"):
        extract_frames(Recording(broken=tuple(range(6))), Selection(), tmp_path / "nothing")
    # Nothing came of that, so nothing has to be cleared away.
    extract_frames(Recording(), Selection(every=2), tmp_path / "nothing")


def test_a_folder_keeps_to_one_recording_and_selection(tmp_path):
    extract_frames(Recording(), Selection(), tmp_path)
    with pytest.raises(BadInputError, match="holds a drive, all frames, not a drive, --every 2"):
        extract_frames(Recording(), Selection(every=2), tmp_path)
    with pytest.raises(BadInputError, match="not another drive"):
        extract_frames(Recording(identity="another drive"), Selection(), tmp_path)
    (tmp_path / "drive/camera/recording.json").write_text("{")
    with pytest.raises(BadInputError, match=r"recording.json is damaged"):
        extract_frames(Recording(), Selection(), tmp_path)


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "drive/camera").mkdir(parents=True)
    Path(tmp_path / "drive/camera/holiday.jpg").touch()
    with pytest.raises(BadInputError, match="holds files already"):
        extract_frames(Recording(), Selection(), tmp_path)
