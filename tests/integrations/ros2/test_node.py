"""The node without a transport: what it publishes for which image."""

import json
import math
import threading
import time
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from recordings import small_frames

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.distance import apart
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.integrations.ros2.cdr import CompressedImage, RawImage, Stamp
from vpr_dhe.integrations.ros2.counters import Counters, Event
from vpr_dhe.integrations.ros2.graph import Names, Topics
from vpr_dhe.integrations.ros2.latest_image import Arrival, NewestImage
from vpr_dhe.integrations.ros2.map_frame import MapFrame
from vpr_dhe.integrations.ros2.messages import Fix, Level, MapPose, OdometryPose, StaticTransform
from vpr_dhe.integrations.ros2.mount import Mount
from vpr_dhe.integrations.ros2.node import LocalizationNode, require_earth, run_node
from vpr_dhe.integrations.ros2.run import require_fitting
from vpr_dhe.integrations.ros2.sequence_source import motion_between
from vpr_dhe.integrations.ros2.settings import NodeSettings, Publishers
from vpr_dhe.localization.calibration.selection import SelectedCalibration
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Belief, GeoPosition, ImageRecord, MetricPosition, PlaceBelief
from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

FRAMES = small_frames(5)
DEADLINE_S = 120.0


class Recorded:
    """Publisher that keeps what it publishes."""

    def __init__(self, has_subscribers: bool = False) -> None:
        self.messages: list = []
        self.has_subscribers = has_subscribers

    def publish(self, message) -> None:
        self.messages.append(message)


@pytest.fixture(scope="module")
def make_index(tmp_path_factory):
    extractor = load_extractor("sift-vlad")

    def make(position_of, heading_deg=None) -> PlaceIndex:
        folder = tmp_path_factory.mktemp("map")
        (folder / "photos").mkdir()
        for number, pixels in enumerate(FRAMES):
            PIL.Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        index = PlaceIndex.create(folder / "index", extractor.spec, folder / "photos", codec="float16")
        index.add([ImageRecord(f"{n}.png", position_of(n), heading_deg) for n in range(4)], extractor)
        return index

    return make


@pytest.fixture(scope="module")
def degrees(make_index) -> PlaceIndex:
    return make_index(lambda number: GeoPosition(48.0 + number / 100, 2.0), 90.0)


@pytest.fixture(scope="module")
def metres(make_index) -> PlaceIndex:
    return make_index(lambda number: MetricPosition(100.0 * number, 5.0))


def image(number: int, **fields) -> RawImage:
    pixels = FRAMES[number]
    height, width = pixels.shape[:2]
    whole = RawImage(Stamp(100, number), "eye", height, width, "rgb8", 0, 3 * width, memoryview(pixels.tobytes()))
    return replace(whole, **fields)


class Run:
    """A node over an index, and what it published for images one after the other."""

    def __init__(self, index: PlaceIndex, *, watched: bool = False, verifier: str = "magsac", **settings) -> None:
        self.published = Publishers(*(Recorded(watched) for _ in range(5)), initial_pose=Recorded(True))
        self.notes: list[str] = []
        chosen = NodeSettings(**({"min_inliers": 4} | settings))
        localizer = Localizer.open(index.folder, verifier=verifier)
        self.node = LocalizationNode(localizer, self.published, chosen, topic="/eye", note=self.notes.append)

    def over(self, *images) -> "Run":
        """Offer each image once the one before is done with."""
        left = list(images)

        def wait(_timeout_s: float) -> bool:
            end_s = time.monotonic() + DEADLINE_S
            while left:
                before = self.done
                self.node.offer(left.pop(0))
                while self.done == before and self.node.failure is None and time.monotonic() < end_s:
                    time.sleep(0.005)
            return True

        run_node(self.node, wait)
        # The last answer may still be published, for longer than a node waits.
        for thread in threading.enumerate():
            if thread.name == "localization":
                thread.join(DEADLINE_S)
        return self

    @property
    def done(self) -> int:
        return len(self.published.answer.messages) + len(self.notes)

    def answers(self) -> list[dict]:
        return [json.loads(message.text) for message in self.published.answer.messages]


def test_degrees_become_fixes(degrees):
    run = Run(degrees).over(lambda: image(2))
    [answer], [fix] = run.answers(), run.published.fix.messages
    assert (answer["query"], answer["timestamp_s"]) == ("100.000000002", pytest.approx(100.0))
    assert answer["matches"][0]["image"] == "2.png"
    assert isinstance(fix, Fix)
    assert (fix.stamp, fix.frame_id) == (Stamp(100, 2), "eye")
    assert fix.position.latitude_deg == pytest.approx(48.02)
    np.testing.assert_array_equal(fix.covariance_m2, answer["position_estimate"]["covariance_m2"])
    assert not run.published.pose.messages


def test_an_origin_makes_poses_of_degrees(degrees):
    run = Run(degrees, map=MapFrame.parse("48.01,2,0"), initial_pose=True).over(lambda: image(1), lambda: image(2))
    first, second = run.published.pose.messages
    assert isinstance(first, MapPose)
    assert (first.x_m, first.y_m) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert (second.x_m, second.y_m) == pytest.approx((1112.0, 0.0), abs=1)
    # The x axis points north; the matched photo looks east.
    assert (first.yaw_rad, first.yaw_variance_rad2) == pytest.approx((-math.pi / 2, math.radians(15) ** 2))
    assert not run.published.fix.messages


def test_poses_are_those_of_the_base(metres, make_index):
    """A camera 2 m ahead of the base, and 1 m to its left, that looks to the left, over a map that looks east."""
    settings = {"base_frame": "base_link", "mount": Mount(2.0, 1.0, math.pi / 2)}
    looking_east = make_index(lambda number: MetricPosition(100.0 * number, 5.0), 90.0)
    [pose] = Run(looking_east, **settings).over(lambda: image(3)).published.pose.messages
    # The base faces south: ahead is -y, left is +x.
    assert (pose.x_m, pose.y_m, pose.yaw_rad) == pytest.approx((300.0 - 1.0, 5.0 + 2.0, -math.pi / 2))
    [without] = Run(looking_east).over(lambda: image(3)).published.pose.messages
    added = pose.covariance_m2 - without.covariance_m2
    np.testing.assert_allclose(added, math.radians(15) ** 2 * np.array([[4.0, 2.0], [2.0, 1.0]]), atol=1e-9)
    # Without a heading, the base is anywhere around the camera.
    [unknown] = Run(metres, **settings).over(lambda: image(3)).published.pose.messages
    assert (unknown.x_m, unknown.y_m, unknown.yaw_rad) == pytest.approx((300.0, 5.0, None))
    np.testing.assert_allclose(unknown.covariance_m2 - without.covariance_m2, np.eye(2) * 2.5, atol=1e-9)


def test_fixes_are_those_of_the_base(degrees):
    run = Run(degrees, base_frame="base_link").over(lambda: image(2))
    assert (len(run.published.answer.messages), run.published.fix.messages) == (1, [])
    assert ["no static transforms from base_link to eye" in note for note in run.notes] == [True]
    run = Run(degrees, base_frame="base_link")
    # The optical frame of a camera that looks ahead, 20 m before the base; the map looks east.
    run.node.use_transforms([StaticTransform("base_link", "eye", (20.0, 0.0, 0.5), (-0.5, 0.5, -0.5, 0.5))])
    [fix] = run.over(lambda: image(2)).published.fix.messages
    assert (fix.frame_id, fix.position.latitude_deg) == ("base_link", pytest.approx(48.02))
    assert apart(fix.position, GeoPosition(48.02, 2.0)) == pytest.approx(20.0, rel=1e-3)
    assert fix.position.longitude_deg < 2.0


def test_an_initial_pose_waits_for_somebody_who_listens(metres):
    for listens, count in ((False, 0), (True, 1)):
        run = Run(metres, initial_pose=True)
        run.node._localizer.selected_calibration = SelectedCalibration()  # the default one does not know such maps
        run.published.initial_pose.has_subscribers = listens
        assert len(run.over(lambda: image(3)).published.initial_pose.messages) == count


def test_metres_become_poses_without_a_yaw_if_there_is_no_heading(metres):
    run = Run(metres, initial_pose=True).over(lambda: image(3))
    [pose] = run.published.pose.messages
    assert (pose.x_m, pose.y_m, pose.yaw_rad, pose.yaw_variance_rad2) == pytest.approx((300.0, 5.0, None, 1e6))
    assert pose.frame_id == "map"


def test_an_initial_pose_is_published_once_and_on_request(metres):
    run = Run(metres, initial_pose=True)
    run.node._localizer.selected_calibration = SelectedCalibration()  # the default one does not know maps of 4 images

    def asked_again() -> RawImage:
        assert len(run.published.initial_pose.messages) == 1
        run.node.request_initial_pose()
        return image(3)

    run.over(lambda: image(1), lambda: image(2), asked_again, lambda: image(1))
    assert len(run.published.pose.messages) == 4
    assert [pose.x_m for pose in run.published.initial_pose.messages] == pytest.approx([100.0, 300.0])


@pytest.mark.parametrize(("verifier", "min_inliers", "count"), [("magsac", 10_000, 0), ("none", 10_000, 1)])
def test_only_matches_with_enough_inliers_have_a_position(metres, verifier, min_inliers, count):
    run = Run(metres, verifier=verifier, min_inliers=min_inliers).over(lambda: image(3))
    assert (len(run.published.answer.messages), len(run.published.pose.messages)) == (1, count)
    if count:
        np.testing.assert_allclose(run.published.pose.messages[0].covariance_m2, np.eye(2) * 156.25, atol=1e-9)


def test_images_that_cannot_be_read_are_counted_and_said_once(metres):
    def damaged():
        raise ImageError("a message ends early")

    bad = lambda: image(1, encoding="32FC1")  # noqa: E731
    run = Run(metres).over(damaged, bad, lambda: image(1, height=10_000), lambda: image(1))
    assert ["ends early" in run.notes[0], "32FC1" in run.notes[1], "damaged" in run.notes[2]] == [True] * 3
    [answer] = run.answers()
    assert answer["matches"][0]["image"] == "1.png"
    run.node.report()
    status = run.published.diagnostics.messages[-1]
    assert (status.level, status.message) == (Level.WARN, "images cannot be read")
    assert (status.values["images unreadable"], status.values["images answered"]) == ("3", "1")
    assert status.values["index images"] == "4"


def test_images_may_change_their_size_and_kind(metres):
    file = PIL.Image.fromarray(np.kron(FRAMES[2], np.ones((2, 2, 1), np.uint8)))
    file.save(metres.folder.parent / "larger.png")
    content = memoryview((metres.folder.parent / "larger.png").read_bytes())
    run = Run(metres).over(lambda: image(1), lambda: CompressedImage(Stamp(1, 1), "eye", "png", content))
    assert [answer["matches"][0]["image"] for answer in run.answers()] == ["1.png", "2.png"]


def test_a_prior_restricts_the_search(degrees):
    run = Run(degrees, within_m=200.0)
    run.node.use_prior(GeoPosition(48.01, 2.0))
    [answer] = run.over(lambda: image(2)).answers()
    assert [match["image"] for match in answer["matches"]] == ["1.png"]
    assert answer["near"]["images"] == 1


def test_matches_are_drawn_while_somebody_looks(metres):
    assert not Run(metres).over(lambda: image(1)).published.matches.messages
    [picture] = Run(metres, watched=True).over(lambda: image(1)).published.matches.messages
    assert (picture.format, picture.stamp, bytes(picture.data[:2])) == ("jpeg", Stamp(100, 1), b"\xff\xd8")


def test_a_sequence_believes(degrees):
    run = Run(degrees, sequence=True, use_odometry=True)
    run.node.follow_odometry(OdometryPose(Stamp(1, 0), 0.0, 0.0, 0.0))
    answers = run.over(lambda: image(1), lambda: image(1), lambda: image(1)).answers()
    assert [answer["belief"]["places"][0]["image"] for answer in answers[1:]] == ["1.png"] * 2
    sure = Run(degrees, sequence=True, min_probability=1.0).over(lambda: image(1))
    assert (len(sure.published.answer.messages), sure.published.fix.messages) == (1, [])


@pytest.mark.parametrize(("probability", "published"), [(0.6, 0), (0.95, 1)])
def test_an_initial_pose_of_a_sequence_is_sure(metres, monkeypatch, probability, published):
    place = PlaceBelief("1.png", probability, MetricPosition(100.0, 5.0))
    monkeypatch.setattr(SequenceLocalizer, "_belief", lambda *_: Belief((place,), 0.05))
    run = Run(metres, sequence=True, initial_pose=True).over(lambda: image(1))
    assert len(run.published.pose.messages) == 1
    assert len(run.published.initial_pose.messages) == published


def test_settings_have_to_fit_the_index(metres):
    with pytest.raises(BadInputError, match="--prior needs positions in degrees or UTM"):
        require_earth(metres, "--prior")


def test_an_initial_pose_needs_metres(degrees, metres):
    settings, topics = NodeSettings(initial_pose=True), Topics(Names(), "/eye")
    require_fitting(Localizer.open(metres.folder, verifier="magsac"), settings, topics)
    localizer = Localizer.open(degrees.folder, verifier="magsac")
    with pytest.raises(BadInputError, match=r"--initial-pose needs positions in metres, .* add --map-origin"):
        require_fitting(localizer, settings, topics)
    require_fitting(localizer, replace(settings, map=MapFrame.parse("48.01,2,0")), topics)


def test_an_index_of_another_model_is_opened_again(make_index, other_extractor, monkeypatch):
    """The folder is replaced by an index of other features, as by someone who tries another model."""
    index = make_index(lambda number: MetricPosition(100.0 * number, 5.0))
    run, folder = Run(index), index.folder
    other = PlaceIndex.create(folder.with_name("other"), other_extractor.spec, folder.with_name("photos"))
    other.add([ImageRecord(f"{n}.png", MetricPosition(7.0, 5.0)) for n in range(4)], other_extractor)
    folder.rename(folder.with_name("away"))
    other.folder.rename(folder)

    def refresh() -> bool:
        run.node._refreshed_s = 0.0
        changed = run.node._refresh()
        run.node.report()
        return changed

    for _ in range(2):  # again and again, not the first time alone
        assert not refresh()
        assert run.published.diagnostics.messages[-1].level == Level.ERROR
    assert "was replaced by an index of model 'thumbnail'" in run.notes[-1]
    database = VerifiedIndex(PlaceIndex.open(folder), Verifier(build_estimator("magsac")))
    monkeypatch.setattr(run.node, "_reopen", lambda: Localizer(database, other_extractor))
    assert refresh()
    assert run.published.diagnostics.messages[-1].level != Level.ERROR
    [pose] = run.over(lambda: image(3)).published.pose.messages
    assert pose.x_m == 7.0


def test_an_index_that_is_gone_is_said_and_the_map_stays(make_index):
    index = make_index(lambda number: MetricPosition(100.0 * number, 5.0))
    run = Run(index)
    index.folder.rename(index.folder.with_name("away"))
    run.node._refreshed_s = 0.0
    run.over(lambda: image(3))
    run.node.report()
    assert run.published.diagnostics.messages[-1].level == Level.ERROR
    assert len(run.published.pose.messages) == 1


def test_an_unexpected_error_ends_the_node(metres):
    def broken():
        raise ZeroDivisionError

    run = Run(metres)
    run.node.offer(broken)
    with pytest.raises(ZeroDivisionError):
        run_node(run.node, lambda _: run.node.failure is not None)


def test_the_newest_image_counts():
    counters = Counters()
    newest = NewestImage(counters)
    for number in range(3):
        newest.offer(lambda number=number: image(number))
    arrival = newest.take(0.0)
    assert (arrival.read().stamp.nanosec, arrival.dropped) == (2, 2)
    assert newest.take(0.0) is None
    values = counters.report("/eye", {}).values
    assert (values["images received"], values["images dropped"]) == ("3", "2")
    counters.add(Event.FAILED)
    counters.fault("the index is damaged")
    assert counters.report("/eye", {}).level == Level.ERROR


@pytest.mark.parametrize(
    ("after", "distance", "direction", "turn"),
    [((0.0, 2.0, 0.5), 2.0, 0.0, 0.0), ((2.0, 0.0, 0.5), 2.0, 90.0, 0.0), ((0.0, 2.0, 0.0), 2.0, 0.0, 90.0)],
)
def test_odometry_is_seen_from_the_camera(after, distance, direction, turn):
    """A robot that faces north, half of pi from the x axis."""
    x, y, yaw = after
    start, end = (OdometryPose(Stamp(0, 0), *pose) for pose in ((0.0, 0.0, math.pi / 2), (x, y, yaw * math.pi)))
    moved = motion_between(start, end)
    assert (moved.distance_m, moved.direction_deg, moved.turn_deg) == pytest.approx(
        (distance, direction, turn), abs=1e-9
    )


def test_an_initial_pose_needs_something_that_tells_right_matches(metres):
    localizer = Localizer.open(metres.folder, verifier="none")
    settings = NodeSettings(initial_pose=True)
    with pytest.raises(BadInputError, match="--initial-pose needs a verifier or a calibration"):
        require_fitting(localizer, settings, Topics(Names(), "/eye"))
    require_fitting(localizer, replace(settings, sequence=True), Topics(Names(), "/eye"))


def test_odometry_needs_positions_that_can_be_compared(make_index):
    index = make_index(lambda number: MetricPosition(0.0, 0.0) if number else GeoPosition(48.0, 2.0))
    with pytest.raises(BadInputError, match=r"--odometry needs positions in one frame, and .* in 2 frames"):
        require_fitting(Localizer.open(index.folder), NodeSettings(use_odometry=True), Topics(Names(), "/eye"))


def test_diagnostics_say_that_nothing_can_be_localized(metres, monkeypatch):
    run = Run(metres)

    def fail(*_, **__):
        raise OSError("the drive of the index is gone")

    monkeypatch.setattr(Localizer, "localize", fail)
    run.node._localize(Arrival(lambda: image(1), 0.0, 0))
    run.node.report()
    assert run.notes == ["the drive of the index is gone"]
    found = run.published.diagnostics.messages[-1]
    assert (found.level, found.message) == (Level.ERROR, "the drive of the index is gone")
