"""Streams end to end: what they add to single answers, live sources, and loops that close."""

import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn.functional import normalize
from waiting import wait_until

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError, ImageError, IndexBusyError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.segments import SegmentWriter
from vpr_dhe.index.writer import IndexWriter
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.selection import SelectedCalibration
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.sequences.bayes_filter import FilterSettings
from vpr_dhe.sequences.frame_memory import FrameMemory, Recent
from vpr_dhe.sequences.frames import DropPolicy, SequenceFrame, read_live
from vpr_dhe.sequences.motion import RouteMotion
from vpr_dhe.sequences.odometry import Odometry
from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
from vpr_dhe.sequences.tracker import PlaceTracker

PIXELS = np.zeros((20, 20, 3), np.uint8)


@pytest.fixture
def localizer(photo_folder, tmp_path, thumbnail_extractor, verifier) -> Localizer:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, rerank=12)


def test_a_stream_answers_as_single_queries_do_and_grows_surer(localizer, photo_folder):
    paths = [photo_folder / f"{number:02d}.png" for number in range(5)]
    single = [localizer.localize(path, top_k=3) for path in paths]
    frames = list(SequenceLocalizer(localizer).stream(paths, top_k=3))
    for number, (frame, alone) in enumerate(zip(frames, single, strict=True)):
        assert frame.localization is not None
        assert [match.image for match in frame.localization.matches] == [match.image for match in alone.matches]
        assert (frame.number, frame.name, frame.dropped, frame.error) == (number, str(paths[number]), 0, None)
    first, last = frames[0].belief, frames[-1].belief
    assert first is not None
    assert last is not None
    assert [belief.places[0].image for belief in (first, last)] == ["00.png", "04.png"]
    assert last.places[0].probability > first.places[0].probability
    assert sum(place.probability for place in last.places) + last.unknown == pytest.approx(1.0, abs=0.1)


def test_a_frame_that_cannot_be_read_is_a_gap(localizer, photo_folder, tmp_path):
    (tmp_path / "broken.png").write_text("no pixels")
    paths = [photo_folder / "00.png", tmp_path / "broken.png", str(photo_folder / "02.png")]
    frames = list(SequenceLocalizer(localizer).stream(paths))
    assert [frame.error is None for frame in frames] == [True, False, True]
    assert frames[1].belief is None
    assert frames[2].belief is not None


def test_calibrated_probabilities_decide_what_a_stream_believes(localizer, photo_folder):
    believed = []
    for probability in (0.001, 0.999):
        intercept = math.log(probability / (1 - probability))
        calibration = Calibration(Conditions("", "magsac", 12), 25.0, 0.5, 10, 5, 12, intercept, {})
        localizer.selected_calibration = SelectedCalibration(calibration, "index")
        frame = next(SequenceLocalizer(localizer).stream([photo_folder / "00.png"]))
        believed.append({place.image: place.probability for place in frame.belief.places}.get("00.png", 0.0))
    assert believed[0] < 0.1
    assert believed[1] > 0.5


def test_settings_of_the_filter_reach_it(localizer, photo_folder):
    path = photo_folder / "00.png"
    sure, unsure = (
        next(SequenceLocalizer(localizer).stream([path], settings=FilterSettings(unknown=unknown))).belief.unknown
        for unknown in (0.01, 0.99)
    )
    assert sure < unsure
    tracker = SequenceLocalizer(localizer).tracker(
        SequenceLocalizer(localizer).place_map(), settings=FilterSettings(unknown=0.99)
    )
    assert next(SequenceLocalizer(localizer).stream([path], tracker=tracker)).belief.unknown == unsure
    with pytest.raises(BadInputError, match="give the settings to the tracker"):
        next(SequenceLocalizer(localizer).stream([path], tracker=tracker, settings=FilterSettings()))


def test_an_image_may_be_given_when_it_is_looked_at(localizer, photo_folder):
    def damaged():
        raise ImageError("no pixels in it")

    looks = [lambda: decode_image(photo_folder / "03.png"), damaged]
    first, second = SequenceLocalizer(localizer).stream([SequenceFrame(look, 7.5, name="a") for look in looks])
    assert (first.localization.matches[0].image, first.name, first.timestamp_s) == ("03.png", "a", 7.5)
    assert (second.localization, second.error) == (None, "no pixels in it")


def test_pixels_are_frames_too(localizer, photo_folder):
    (frame,) = SequenceLocalizer(localizer).stream([decode_image(photo_folder / "03.png")])
    assert frame.localization is not None
    assert frame.localization.matches[0].image == "03.png"
    assert frame.name is None


def slow_source(taken: threading.Semaphore, count: int, made: list[int]):
    """Frames that come as fast as they are read, but for the first: the second waits until it has been taken."""
    for number in range(count):
        if number == 1:
            assert taken.acquire(timeout=10)
        made.append(number)
        yield SequenceFrame(PIXELS, odometry=Odometry(1.0), name=str(number))


def test_latest_drops_what_waits_and_counts_it():
    taken, made = threading.Semaphore(0), []
    frames = read_live(slow_source(taken, 50, made), DropPolicy.latest)
    first = next(frames)
    taken.release()
    wait_until(lambda: len(made) == 50 and all(thread.name != "frames" for thread in threading.enumerate()))
    rest = list(frames)
    assert (first.name, first.dropped) == ("0", 0)
    assert [(frame.name, frame.dropped) for frame in rest] == [("49", 48)]
    assert rest[0].odometry == Odometry(49.0)


def test_a_stream_localizes_what_the_policy_keeps(localizer):
    taken, made = threading.Semaphore(0), []
    found = SequenceLocalizer(localizer).stream(slow_source(taken, 50, made), drop=DropPolicy.latest)
    first = next(found)
    taken.release()
    wait_until(lambda: len(made) == 50 and all(thread.name != "frames" for thread in threading.enumerate()))
    assert [(one.number, one.name, one.dropped) for one in (first, *found)] == [(0, "0", 0), (49, "49", 48)]


def test_none_keeps_all_and_makes_the_source_wait():
    taken, made = threading.Semaphore(1), []
    frames = read_live(slow_source(taken, 40, made), DropPolicy.none, capacity=3)
    names = []
    for frame in frames:
        names.append(frame.name)
        # One is in the reader's hands besides those in the queue, and one in ours.
        assert len(made) <= len(names) + 3 + 1
    assert names == [str(number) for number in range(40)]


def test_what_a_source_raises_comes_after_its_frames():
    def failing():
        yield SequenceFrame(PIXELS, name="0")
        raise RuntimeError("camera unplugged")

    frames = read_live(failing(), DropPolicy.none)
    assert next(frames).name == "0"
    with pytest.raises(RuntimeError, match="unplugged"):
        next(frames)
    with pytest.raises(BadInputError, match="at least 1"):
        next(read_live([], DropPolicy.none, capacity=0))


def test_a_reader_ends_when_nobody_listens():
    taken, made = threading.Semaphore(10**6), []
    frames = read_live(slow_source(taken, 10**6, made), DropPolicy.none, capacity=2)
    next(frames)
    frames.close()
    for thread in [thread for thread in threading.enumerate() if thread.name == "frames"]:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert len(made) <= 5


def test_a_loop_closes_on_the_first_lap_and_not_on_the_frames_before(laps, empty_index, verifier, thumbnail_extractor):
    lap = len(laps) // 2
    with FrameMemory(empty_index, verifier, recent=Recent(frames=6), flush_every=5) as memory:
        localizer = Localizer(memory, thumbnail_extractor, rerank=20)
        tracker = PlaceTracker(SequenceLocalizer(localizer, memory).place_map(), RouteMotion(slowest=-2, fastest=2))
        frames = [SequenceFrame(pixels, name=f"lap/{number:03d}.jpg") for number, pixels in enumerate(laps)]
        found = list(SequenceLocalizer(localizer, memory).stream(frames, tracker=tracker))
    for frame in found:
        assert frame.localization is not None
        shown = [int(Path(match.image).stem) for match in frame.localization.matches]
        assert all(number < frame.number - 6 for number in shown)
    assert all(frame.belief is not None and frame.belief.best is None for frame in found[:lap])
    closed = [frame.belief.best for frame in found[lap + 4 :] if frame.belief is not None]
    assert all(best is not None for best in closed)
    numbers = [int(Path(best.image).stem) for best in closed if best is not None]
    assert np.abs(np.array(numbers) - np.arange(4, lap)).max() <= 1


def test_a_second_stream_goes_by_what_was_remembered_last_and_not_by_names(
    laps, empty_index, verifier, thumbnail_extractor
):
    lap = len(laps) // 2
    frames = [SequenceFrame(pixels, name=f"{99 - number}.jpg") for number, pixels in enumerate(laps)]
    with FrameMemory(empty_index, verifier, recent=Recent(frames=6), flush_every=5) as memory:
        localizer = Localizer(memory, thumbnail_extractor, rerank=20)
        list(SequenceLocalizer(localizer, memory).stream(frames[:lap]))
        tracker = SequenceLocalizer(localizer, memory).tracker(
            SequenceLocalizer(localizer, memory).place_map(), RouteMotion(slowest=-2, fastest=2)
        )
        found = list(SequenceLocalizer(localizer, memory).stream(frames[lap:], tracker=tracker))
    for frame in found:
        assert sum(place.probability for place in frame.belief.places) + frame.belief.unknown < 1 + 1e-9
    closed = [frame.belief.best for frame in found[4:]]
    assert np.abs(np.array([99 - int(Path(best.image).stem) for best in closed]) - np.arange(4, lap)).max() <= 1


def test_what_is_remembered_is_an_index(laps, empty_index, verifier, thumbnail_extractor):
    with FrameMemory(empty_index, verifier, recent=Recent(frames=0), flush_every=4) as memory:
        localizer = Localizer(memory, thumbnail_extractor, rerank=4)
        frames = [SequenceFrame(pixels, 10.0 + number, name=f"{number}.jpg") for number, pixels in enumerate(laps[:10])]
        list(SequenceLocalizer(localizer, memory).stream(frames))
        # Two frames wait, and are found all the same.
        assert len(PlaceIndex.open(empty_index.folder)) == 8
        answer = localizer.localize(laps[9])
        assert (answer.matches[0].image, answer.matches[0].inliers) == ("9.jpg", 16)
        with pytest.raises(IndexBusyError):
            PlaceIndex.open(empty_index.folder).remove([0])
        with pytest.raises(BadInputError, match="already"):
            memory.append(frames[0], laps[0], thumbnail_extractor.extract(laps[:1])[0])
    reopened = PlaceIndex.open(empty_index.folder)
    assert reopened.ids.tolist() == list(range(10))
    assert (reopened.image(7).path, reopened.image(7).timestamp_s) == ("7.jpg", 17.0)
    assert reopened.check().damaged == ()
    # The files are those that the index would have read itself.
    report = reopened.add(read_split(tmp := Path(reopened.manifest.images_folder)).records, thumbnail_extractor)
    assert (report.added, report.replaced, len(list(tmp.iterdir()))) == (0, 0, 10)


@pytest.mark.parametrize("interrupted", ["while the segment is written", "after it is published"])
def test_an_interrupted_flush_adds_every_frame_once(
    interrupted, laps, empty_index, verifier, thumbnail_extractor, monkeypatch
):
    def interrupt(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    appended, append = [], SegmentWriter.append

    def append_two(writer, image):
        append(writer, image)
        appended.append(image)
        if len(appended) == 2:
            interrupt()

    features = thumbnail_extractor.extract(laps[:5])
    memory = FrameMemory(empty_index, verifier, flush_every=100)

    def follow():
        with memory:
            for number, found in enumerate(features):
                memory.append(SequenceFrame(laps[number], name=f"{number}.jpg"), laps[number], found)
            if interrupted == "after it is published":
                monkeypatch.setattr(IndexWriter, "merge_tail", interrupt)
            else:
                monkeypatch.setattr(SegmentWriter, "append", append_two)
            memory.flush()

    with pytest.raises(KeyboardInterrupt):
        follow()
    reopened = PlaceIndex.open(empty_index.folder)
    assert [reopened.image(id).path for id in reopened.ids.tolist()] == [f"{number}.jpg" for number in range(5)]
    vectors = normalize(torch.stack([found.global_descriptor for found in features]), dim=1)
    torch.testing.assert_close(reopened.descriptors(reopened.ids), vectors)
    with pytest.raises(BadInputError, match="inside `with"):
        memory.append(SequenceFrame(laps[5], name="5.jpg"), laps[5], features[0])


def test_recent_is_a_number_or_a_time(laps, empty_index, verifier, thumbnail_extractor):
    features = thumbnail_extractor.extract(laps[:6])
    with FrameMemory(empty_index, verifier, recent=Recent(frames=1, seconds=2.5), flush_every=2) as memory:
        for number in range(6):
            memory.advance(float(number))
            seen = memory.pinned().search(features[number].global_descriptor[None], 10).ids[0].tolist()
            # Frames of 2.5 seconds are hidden: the one before, and the one before that.
            assert sorted(seen) == list(range(max(number - 2, 0)))
            frame = SequenceFrame(laps[number], float(number), name=f"{number}.jpg")
            memory.append(frame, laps[number], features[number])
        memory.advance(100.0)
        assert memory.recent == 1


def test_bad_frames_are_explained(laps, empty_index, tmp_path, thumbnail_extractor, photo_folder):
    features = thumbnail_extractor.extract(laps[:1])[0]
    memory = FrameMemory(empty_index, None)
    with pytest.raises(BadInputError, match="inside `with"):
        memory.append(SequenceFrame(laps[0], name="0.jpg"), laps[0], features)
    with memory:
        with pytest.raises(BadInputError, match="no name"):
            memory.append(SequenceFrame(laps[0]), laps[0], features)
        with pytest.raises(BadInputError, match="lies outside"):
            memory.append(SequenceFrame(photo_folder / "00.png"), laps[0], features)
        taken = Path(empty_index.manifest.images_folder) / "taken.jpg"
        taken.parent.mkdir(exist_ok=True)
        taken.write_text("another's")
        with pytest.raises(BadInputError, match="exists already"):
            memory.append(SequenceFrame(laps[0], name="taken.jpg"), laps[0], features)
    assert taken.read_text() == "another's"
    with pytest.raises(BadInputError, match="flush_every"):
        FrameMemory(empty_index, None, flush_every=0)


def test_files_get_their_names_by_any_way_to_them(laps, empty_index, thumbnail_extractor, tmp_path):
    folder, features = Path(empty_index.manifest.images_folder), thumbnail_extractor.extract(laps[:1])[0]
    (folder / "day-1").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    ways = (folder / "day-1/../0.png", tmp_path / "link/1.png", folder / "day-1/2.png")
    for way in ways:
        PIL.Image.fromarray(laps[0]).save(way)
    with FrameMemory(empty_index, None) as memory:
        for way in ways:
            memory.append(SequenceFrame(way), laps[0], features)
    found = {empty_index.image(id).path for id in empty_index.ids.tolist()}
    assert found == {"0.png", "1.png", "day-1/2.png"}


def test_frames_are_appended_to_the_memory_that_is_searched(empty_index, thumbnail_extractor):
    memory, other = (FrameMemory(empty_index, None) for _ in range(2))
    with pytest.raises(BadInputError, match="not the database of the localizer"):
        SequenceLocalizer(Localizer(memory, thumbnail_extractor), other)
    with pytest.raises(BadInputError, match="searches a frame memory; give it here, too"):
        SequenceLocalizer(Localizer(memory, thumbnail_extractor))


def test_files_in_the_images_folder_are_remembered_as_they_are(photo_folder, tmp_path, thumbnail_extractor, verifier):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="int8")
    with FrameMemory(index, verifier, recent=Recent(frames=2)) as memory:
        paths = [photo_folder / f"{number:02d}.png" for number in range(5)]
        frames = list(SequenceLocalizer(Localizer(memory, thumbnail_extractor), memory).stream(paths))
    assert [frame.error for frame in frames] == [None] * 5
    assert [index.image(id).path for id in index.ids.tolist()] == [path.name for path in paths]
    assert replace(index.image(0), path="") == replace(read_split(photo_folder).records[0], path="")


def test_frames_have_the_size_limit_of_the_localizer(localizer, photo_folder):
    localizer.max_pixels = 100
    frame = next(SequenceLocalizer(localizer).stream([photo_folder / "00.png"]))
    assert "more than the 100 that are decoded" in frame.error
