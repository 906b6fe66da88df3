"""Bags and videos through the commands: the answers are those of a folder of the same frames."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from recordings import FIXES, IMAGES, START_NS, Bag, bag_of, small_frames, video_of

from vpr_dhe.images import decode_image
from vpr_dhe.sources import extraction

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
    assert (code, stdout) == (0, f"{tmp_path / 'index'}: 12 images (12 added, 0 skipped), model sift-vlad\n")
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
    assert "are gone" not in stderr
    kept = tmp_path / "index-frames/day2/camera_image_raw"
    expected = cv2.imencode(".jpg", small_frames(3, seed=2)[2])[1].tobytes()
    assert (kept / "00000002.jpg").read_bytes() == expected
    assert (kept / "frames.csv").read_text().splitlines()[-1] == "00000002.jpg,,,1700000002.000000"
    # Whatever looks at a folder looks at frames, and nothing known of them is lost.
    assert "6 images (0 added, 6 unchanged, 0 skipped)" in run("index", kept.parents[1], "--out", tmp_path / "index")[1]


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
    assert (code, stdout, "run the command again to go on" in stderr) == (1, "", True)
    monkeypatch.undo()
    code, stdout, _ = run("frames", *options)
    assert (code, "4 frames, and what is known of them in frames.csv" in stdout) == (0, True)
    names = [f"0000000{number}.png" for number in (0, 3, 6, 9)]
    assert written == ["recording.json", *names[:2]]
    found = [decode_image(tmp_path / "asked/walk" / name) for name in names]
    np.testing.assert_array_equal(found, [FRAMES[number] for number in (0, 3, 6, 9)])


def test_a_video_that_was_cut_off_is_said_to_be(run, tmp_path):
    video = video_of(tmp_path / "walk.mkv", FRAMES)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    code, _, stderr = run("frames", "--video", video, "--out", tmp_path / "asked")
    assert (code, "of the 12 frames that it announces; it may be cut off" in stderr) == (0, True)


def test_mistakes_end_in_one_sentence_and_leave_nothing(run, tmp_path, monkeypatch):
    bag = bag_of(tmp_path / "drive.bag", FRAMES[:2])
    video = video_of(tmp_path / "walk.mkv", FRAMES[:2])
    (tmp_path / "words.mp4").write_text("these are words")
    for options, complaint in (
        (("--bag", bag, "--topic", "/none"), "has no topic /none; topics with images: /camera/image_raw"),
        (("--bag", bag), "--bag needs --topic"),
        (("--topic", IMAGES), "--topic was given without --bag"),
        (("--bag", bag, "--topic", IMAGES, "--video", video), "take one recording at a time"),
        (("--bag", bag, "--topic", IMAGES, "--min-metres", 2), "--min-metres was given without --fix-topic"),
        (("--video", video, "--every", 2, "--min-seconds", 1), "use one of them"),
        (("--video", video, "--prune"), "--prune looks for images of the whole folder, and a recording gives a part"),
        (("--video", tmp_path / "words.mp4"), "cannot be opened; it is damaged"),
        (("--every", 2), "--every was given without --bag or --video"),
        ((), "give either a folder of images, or one recording"),
        ((tmp_path, "--frames", tmp_path / "frames"), "--frames is for what is taken out of a recording"),
    ):
        code, stdout, stderr = run("index", *options, "--out", tmp_path / "index")
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert (code, stdout, len(errors), complaint in errors[0]) == (2, "", 1, True), stderr
    assert not (tmp_path / "index").exists()
    assert not (tmp_path / "index-frames").exists()
    monkeypatch.setitem(sys.modules, "rosbags", None)
    for name in [name for name in sys.modules if name.startswith("rosbags.")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, stderr = run("frames", "--bag", bag, "--topic", IMAGES, "--out", tmp_path / "asked")
    assert (code, 'install it with: pip install "vpr-dhe[bags]"' in stderr) == (2, True)
