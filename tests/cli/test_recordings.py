"""Bags and videos through the commands: the answers are those of a folder of the same frames."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from recordings import FIXES, IMAGES, START_NS, Bag, bag_of, small_frames, video_of

from tests.index.adaptation.towns import SPEC
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.recordings import extraction
from vpr_dhe.records import ImageRecord
from vpr_dhe.sequences import frame_memory

FRAMES = small_frames()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    for number, pixels in enumerate(FRAMES):
        PIL.Image.fromarray(pixels).save(folder / f"{number:08d}.png")
    return folder


@pytest.fixture
def answers(run, tmp_path):
    """What an index answers to two photos that are in none: image, similarity and inliers, best first."""
    for number in (2, 7):
        PIL.Image.fromarray(cv2.GaussianBlur(FRAMES[number], (3, 3), 0)).save(tmp_path / f"blurred{number}.png")

    def ask(index: Path) -> list[list[tuple[str, float, int]]]:
        photos = [tmp_path / f"blurred{number}.png" for number in (2, 7)]
        code, stdout, _ = run("query", index, *photos, "--format", "json", "--top-k", 12)
        assert code == 0
        return [
            [(Path(match["image"]).name, match["similarity"], match["inliers"]) for match in query["matches"]]
            for query in json.loads(stdout)["queries"]
        ]

    return ask


@pytest.mark.parametrize(
    "name", ["drive-mcap", *(pytest.param(name, marks=pytest.mark.slow) for name in ("drive.bag", "drive-db3"))]
)
def test_a_bag_is_ranked_as_the_folder_of_its_frames(run, folder, answers, tmp_path, name):
    bag = bag_of(tmp_path / name, FRAMES)
    run("index", folder, "--out", tmp_path / "plain", "--codec", "int8")
    options = ("--bag", bag, "--topic", IMAGES, "--fix-topic", FIXES, "--out", tmp_path / "index", "--codec", "int8")
    code, stdout, stderr = run("index", *options)
    assert (code, stdout) == (0, f"{tmp_path / 'index'}: 12 images (12 added, 0 skipped), model lite-vlad\n")
    assert "1 of 12 frames have no position by /gps/fix" in stderr
    plain = answers(tmp_path / "plain")
    assert [matches[0][0] for matches in plain] == ["00000002.png", "00000007.png"]
    assert answers(tmp_path / "index") == plain
    asked = tmp_path / "index-frames" / bag.stem / "camera_image_raw" / "00000003.png"
    best = json.loads(run("query", tmp_path / "index", asked, "--format", "jsonl")[1])["matches"][0]
    assert best["image"] == f"{bag.stem}/camera_image_raw/00000003.png"
    assert best["position"]["latitude_deg"] == pytest.approx(48.00015, abs=1e-9)
    again = run("index", *options)[1]
    assert "12 images (0 added, 12 unchanged, 0 skipped)" in again


@pytest.mark.slow
def test_compressed_frames_of_several_bags_share_an_index(run, tmp_path):
    for day in (1, 2):
        bag = Bag(tmp_path / f"day{day}.bag")
        for number, pixels in enumerate(small_frames(3, seed=day)):
            bag.file(START_NS + number * 10**9, cv2.imencode(".jpg", pixels)[1].tobytes())
        bag.file(START_NS + 9 * 10**9, b"a camera that stumbled")
        bag.write()
        code, stdout, stderr = run("index", "--bag", bag.path, "--topic", IMAGES, "--out", tmp_path / "index")
        assert (code, "skipped frame 3: 22 bytes in the format 'jpeg'" in stderr) == (0, True)
    assert "6 images (3 added, 0 skipped)" in stdout
    assert "are missing" not in stderr
    kept = tmp_path / "index-frames/day2/camera_image_raw"
    expected = cv2.imencode(".jpg", small_frames(3, seed=2)[2])[1].tobytes()
    assert (kept / "00000002.jpg").read_bytes() == expected
    assert (kept / "frames.csv").read_text().splitlines()[-1] == "00000002.jpg,,,1700000002.000000"
    # Whatever looks at a folder looks at frames, and nothing known of them is lost.
    assert "6 images (0 added, 6 unchanged, 0 skipped)" in run("index", kept.parents[1], "--out", tmp_path / "index")[1]


@pytest.mark.slow
def test_a_recording_is_asked_as_the_folder_of_its_frames_is(run, folder, tmp_path):
    run("index", folder, "--out", tmp_path / "index", "--codec", "int8")
    bag = bag_of(tmp_path / "drive.bag", FRAMES[:5])
    recording = ("--bag", bag, "--topic", IMAGES, "--min-seconds", 1)
    run("frames", *recording, "--out", tmp_path / "asked")

    def matches(*options: object) -> list:
        code, stdout, stderr = run("query", tmp_path / "index", *options, "--rerank", 4, "--format", "jsonl")
        assert code == 0, stderr
        documents = [json.loads(line) for line in stdout.splitlines()]
        assert [document["timestamp_s"] for document in documents] == [1_700_000_000.0 + number for number in range(3)]
        return [[document["matches"], document.get("belief")] for document in documents]

    asked = tmp_path / "asked/drive/camera_image_raw"
    assert matches(*recording, "--sequence") == matches(asked, "--times", asked / "frames.csv", "--sequence")
    rows = (asked / "frames.csv").read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join(rows[:-1]))
    code, stdout, stderr = run("query", tmp_path / "index", asked, "--times", tmp_path / "some.csv", "--sequence")
    assert (code, stdout, "gives 1 photos no time, such as" in stderr) == (2, "", True)
    plainly = ("query", tmp_path / "index", *recording, "--top-k", 1, "--verifier", "none")
    rows = run(*plainly, "--format", "csv")[1].splitlines()
    names = [f"drive/camera_image_raw/0000000{number}" for number in (0, 2, 4)]
    assert [row.split(",")[0:3:2] for row in rows[1:]] == [[name, f"{Path(name).name}.png"] for name in names]
    assert rows[-1].endswith(",1700000002.000000")
    assert f"{names[0]} at 1700000000.000 s" in run(*plainly)[1]


@pytest.mark.slow
def test_a_way_that_is_gone_twice_closes_loops(run, tmp_path):
    again = [cv2.GaussianBlur(pixels, (3, 3), 0) for pixels in FRAMES]
    video = video_of(tmp_path / "walk.mkv", [*FRAMES, *again])
    options = ("loops", "--video", video, "--ignore-seconds", 0.5, "--rerank", 6, "--index", tmp_path / "way")
    code, stdout, stderr = run(*options)
    assert (code, "loops among 24 frames" in stderr) == (0, True)
    loops = [json.loads(line) for line in stdout.splitlines()]
    assert {loop["query"] for loop in loops} >= {f"walk/000000{number}.jpg" for number in range(15, 24)}
    for loop in loops:
        query, image = (int(Path(loop[side]).stem) for side in ("query", "image"))
        # The belief may point to a neighbour of the frame.
        assert abs(query - image - 12) <= 1
        assert loop["timestamp_s"] - loop["image_timestamp_s"] == pytest.approx(0.1 * (query - image))
        assert (0.5 <= loop["probability"] <= 1, loop["inliers"] > 0, len(loop["homography"])) == (True, True, 3)
    # What it remembered is an index, whose frames lie beside it.
    assert run("query", tmp_path / "way", tmp_path / "way-frames/walk/00000003.jpg")[0] == 0
    assert PlaceIndex.open(tmp_path / "way").image(3) == ImageRecord("walk/00000003.jpg")
    assert "vpr-dhe-" not in "".join(path.name for path in tmp_path.iterdir())


@pytest.mark.slow
def test_loops_of_a_folder_go_by_its_names(run, folder, tmp_path):
    twice = tmp_path / "twice"
    twice.mkdir()
    for number, pixels in enumerate([*FRAMES[:6], *FRAMES[:6]]):
        PIL.Image.fromarray(pixels).save(twice / f"{number}.png")
    linked = tmp_path / "linked"
    linked.mkdir()
    for photo in twice.iterdir():
        (linked / photo.name).symlink_to(Path("..") / "twice" / photo.name)
    options = ("--ignore-frames", 2, "--verifier", "none", "--format")
    asked = {"csv": twice, "hloc": linked}
    found = {format: run("loops", frames, *options, format)[1].splitlines() for format, frames in asked.items()}
    assert found["csv"][0] == "query,timestamp_s,image,image_timestamp_s,probability,similarity,score,inliers"
    assert [row.split(",")[0:3:2] for row in found["csv"][1:]] == [pair.split() for pair in found["hloc"]]
    assert "10.png 4.png" in found["hloc"]
    # Where there are times, 30 seconds pass before a place is one to come back to.
    times = tmp_path / "times.csv"
    times.write_text("image,timestamp\n" + "".join(f"{number}.png,{number}\n" for number in range(12)))
    code, stdout, stderr = run("loops", twice, "--times", times, *options, "hloc")
    assert (code, stdout, "0 loops among 12 frames" in stderr) == (0, "", True)
    code, _, stderr = run("loops", twice, "--ignore-seconds", 2)
    assert (code, "--ignore-seconds needs times; give them by --times" in stderr) == (2, True)


def test_loops_find_names_that_pairs_cannot_have_before_the_work(run, tmp_path):
    video = video_of(tmp_path / "my walk.mkv", FRAMES[:1])
    folder = tmp_path / "folder"
    folder.mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(folder / "frame 1.png")
    for frames, name in (((folder,), "frame 1.png"), (("--video", video), "my walk")):
        code, stdout, stderr = run("loops", *frames, "--format", "hloc", "--index", tmp_path / "way")
        assert (code, stdout, stderr.count("\n")) == (2, "", 1)
        assert f"cannot contain blanks, found '{name}'; use another --format" in stderr
    assert not (tmp_path / "way").exists()


def test_loops_do_not_touch_frames_that_were_extracted(run, tmp_path):
    video = video_of(tmp_path / "walk.mkv", FRAMES[:1])
    extracted = tmp_path / "way-frames/walk/00000000.jpg"
    extracted.parent.mkdir(parents=True)
    extracted.write_text("the original")
    code, stdout, stderr = run("loops", "--video", video, "--index", tmp_path / "way")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert "way-frames already exists" in stderr
    assert (extracted.read_text(), (tmp_path / "way").exists()) == ("the original", False)


def test_loops_say_what_is_kept_when_they_are_interrupted(run, tmp_path, monkeypatch):
    video = video_of(tmp_path / "walk.mkv", FRAMES[:3])
    write = frame_memory.write_durably

    def until_stopped(folder: Path, name: str, content: bytes) -> Path:
        if name == "00000002.jpg":
            raise KeyboardInterrupt
        return write(folder, name, content)

    monkeypatch.setattr(frame_memory, "write_durably", until_stopped)
    code, stdout, stderr = run("loops", "--video", video, "--verifier", "none", "--index", tmp_path / "way")
    said = f"the frames are safe in {tmp_path / 'way'}, and a new run needs another --index"
    assert (code, stdout) == (1, "")
    assert f"interrupted: 0 loops among the first 2 frames are written; {said}" in stderr
    assert len(PlaceIndex.open(tmp_path / "way")) == 2


def test_an_interrupted_extraction_goes_on(run, tmp_path, monkeypatch):
    video = video_of(tmp_path / "walk.mkv", FRAMES)
    options = ("--video", video, "--out", tmp_path / "asked", "--min-seconds", 0.25)
    write, written = extraction.write_durably, []

    def until_stopped(folder: Path, name: str, content: bytes):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(name)
        return write(folder, name, content)

    monkeypatch.setattr(extraction, "write_durably", until_stopped)
    code, stdout, stderr = run("frames", *options)
    assert (code, stdout, "run the command again to continue" in stderr) == (1, "", True)
    monkeypatch.undo()
    code, stdout, _ = run("frames", *options)
    assert (code, "4 frames, with times and positions in frames.csv" in stdout) == (0, True)
    names = [f"0000000{number}.png" for number in (0, 3, 6, 9)]
    assert written == ["recording.json", *names[:2]]
    found = [decode_image(tmp_path / "asked/walk" / name) for name in names]
    np.testing.assert_array_equal(found, [FRAMES[number] for number in (0, 3, 6, 9)])


def test_a_video_that_was_cut_off_is_said_to_be(run, tmp_path):
    video = video_of(tmp_path / "walk.mkv", FRAMES)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    code, _, stderr = run("frames", "--video", video, "--out", tmp_path / "asked")
    assert (code, "of the 12 frames that it announces; it may be truncated" in stderr) == (0, True)


def test_mistakes_end_in_one_sentence_and_leave_nothing(run, tmp_path, monkeypatch):
    bag = bag_of(tmp_path / "drive.bag", FRAMES[:2])
    video = video_of(tmp_path / "walk.mkv", FRAMES[:2])
    (tmp_path / "words.mp4").write_text("these are words")
    for options, complaint in (
        (("--bag", bag, "--topic", "/none"), "has no topic /none; topics with images: /camera/image_raw"),
        (("--bag", bag), "--bag needs --topic"),
        (("--topic", IMAGES), "--topic needs --bag"),
        (("--bag", bag, "--topic", IMAGES, "--video", video), "give one recording at a time"),
        (("--bag", bag, "--topic", IMAGES, "--min-metres", 2), "--min-metres needs --fix-topic"),
        (("--video", video, "--every", 2, "--min-seconds", 1), "use one of them"),
        (("--video", video, "--prune"), "--prune needs the whole folder, and a recording gives only a part"),
        (("--video", tmp_path / "words.mp4"), "cannot be opened; it is damaged"),
        (("--every", 2), "--every needs --bag or --video"),
        ((), "give either a folder of images, or one recording"),
        ((tmp_path, "--frames", tmp_path / "frames"), "--frames is the folder of frames of a recording"),
    ):
        code, stdout, stderr = run("index", *options, "--out", tmp_path / "index")
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert (code, stdout, len(errors), complaint in errors[0]) == (2, "", 1, True), stderr
    assert not (tmp_path / "index").exists()
    assert not (tmp_path / "index-frames").exists()
    PlaceIndex.create(tmp_path / "index", SPEC, tmp_path)
    for command in (("query", tmp_path / "index"), ("loops",)):
        for options, complaint in (
            ((), "or one recording by --bag or --video"),
            ((tmp_path, "--video", video), "or one recording by --bag or --video"),
            (("--video", video, "--times", tmp_path / "t.csv"), "--times is for photos"),
        ):
            code, stdout, stderr = run(*command, *options)
            assert (code, stdout, stderr.count("\n"), complaint in stderr) == (2, "", 1, True), stderr
    code, _, stderr = run("query", tmp_path / "index", "--video", video, "--report", tmp_path / "report.html")
    assert (code, "extract frames with `vpr-dhe frames`" in stderr) == (2, True)
    pairs = ("--format", "hloc", "--names-relative-to", tmp_path)
    code, _, stderr = run("query", tmp_path / "index", "--video", video, *pairs)
    assert (code, "--names-relative-to is for image files" in stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "rosbags", None)
    for name in [name for name in sys.modules if name.startswith("rosbags.")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, stderr = run("frames", "--bag", bag, "--topic", IMAGES, "--out", tmp_path / "asked")
    assert (code, 'install it with: pip install "vpr-dhe[bags]"' in stderr) == (2, True)


def test_frames_of_a_video_have_the_positions_of_a_track(run, tmp_path):
    video = video_of(tmp_path / "ride.mp4", FRAMES)
    points = "".join(
        f'<trkpt lat="{49 + second / 1000}" lon="7"><time>2026-05-01T10:30:{second:02d}Z</time></trkpt>'
        for second in range(5)
    )
    (tmp_path / "ride.gpx").write_text(f"<gpx><trk><trkseg>{points}</trkseg></trk></gpx>")
    options = ("--video", video, "--track", tmp_path / "ride.gpx", "--min-metres", 30)
    code, stdout, stderr = run("frames", *options, "--out", tmp_path / "frames")
    # 11 frames of 0.1 s at 111 m/s.
    assert (code, "frames/ride: 4 frames" in stdout, "ride.mp4 starts at 2026-05-01T10:30:00" in stderr) == (
        0,
        True,
        True,
    )
    table = (tmp_path / "frames/ride/frames.csv").read_text().splitlines()
    assert table[0] == "image,latitude,longitude,timestamp"
    assert table[2].startswith("00000003.png,49.000300000,7.000000000,1777631400.3")

    code, stdout, _ = run("index", *options, "--out", tmp_path / "index", "--codec", "int8")
    assert (code, "4 images" in stdout) == (0, True)
    assert PlaceIndex.open(tmp_path / "index").image(1).position.latitude_deg == pytest.approx(49.0003)
    assert run("loops", *options, "--verifier", "none", "--index", tmp_path / "way")[0] == 0
    assert PlaceIndex.open(tmp_path / "way").image(1).timestamp_s == pytest.approx(1777631400.3)
    for wrong in (
        ("--track", tmp_path / "ride.gpx"),
        ("--video", video, "--min-metres", 3),
        (*options, "--video-start", "x"),
    ):
        code, _, stderr = run("frames", *wrong, "--out", tmp_path / "other")
        assert (code, stderr.splitlines()[-1].startswith("error:")) == (2, True)
