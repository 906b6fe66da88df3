"""`vpr-dhe ros2` over real DDS on the loopback interface, with a camera in a process of its own."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from recordings import small_frames

pytest.importorskip("cyclonedds", reason="no cyclonedds; pip install vpr-dhe[ros2]")

import PIL.Image
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from tests.integrations.ros2 import lo
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.integrations.ros2 import idl
from vpr_dhe.integrations.ros2.graph import dds_topic
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition
from vpr_dhe.synthetic_town.town import Camera, SyntheticTown

# Far more than anything takes here.
DEADLINE_S = 120.0
ROOT = Path(__file__).parents[3]
FRAMES = small_frames(5)
TYPES = {
    "/vpr_dhe/answer": idl.String,
    "/vpr_dhe/fix": idl.NavSatFix,
    "/vpr_dhe/pose": idl.PoseWithCovarianceStamped,
    "/vpr_dhe/matches/compressed": idl.CompressedImage,
    "/diagnostics": idl.DiagnosticArray,
    "/initialpose": idl.PoseWithCovarianceStamped,
}


class Robot:
    """A domain with a participant of this process, the node, and the camera."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | lo.environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        number = int(self.environment["ROS_DOMAIN_ID"])
        self.domain = Domain(number, self.environment["CYCLONEDDS_URI"])
        self.participant = DomainParticipant(number)
        self.readers: dict[str, DataReader] = {}

    def listen(self, topic: str, name: str | None = None) -> None:
        qos = Qos(Policy.Reliability.Reliable(10**8), Policy.History.KeepLast(50))
        self.readers[name or topic] = DataReader(
            self.participant, Topic(self.participant, dds_topic(name or topic), TYPES[topic]), qos=qos
        )

    def wait(self, topic: str, fits=lambda message: True, before_each=lambda: None):
        """The first message of a topic that fits."""
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            before_each()
            for message in self.readers[topic].take(10):
                if fits(message):
                    return message
            time.sleep(0.02)
        raise TimeoutError(f"nothing that fits came on {topic}\n{(self.folder / 'node.log').read_text()}")

    def collect(self, topic: str, count: int) -> dict[int, object]:
        """The first message of each of so many images, which the camera plays again and again, by their numbers."""
        found: dict[int, object] = {}
        while len(found) < count:
            message = self.wait(topic)
            found.setdefault(image_number(message), message)
        return found

    @contextmanager
    def node(self, *arguments: object) -> Iterator[subprocess.Popen]:
        log = (self.folder / "node.log").open("w")
        command = [sys.executable, "-m", "vpr_dhe", "ros2", *map(str, arguments)]
        process = subprocess.Popen(command, env=self.environment, stderr=log, cwd=ROOT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def camera(
        self, images=FRAMES, topic="/camera/image_raw", kind="raw", *more: str, poses: np.ndarray | None = None
    ) -> Iterator[None]:
        np.savez(self.folder / "images.npz", *images, **({} if poses is None else {"poses": poses}))
        command = [sys.executable, str(Path(__file__).with_name("player.py")), str(self.folder / "images.npz")]
        with subprocess.Popen(
            [*command, topic, kind, "0.2", *more], env=self.environment, stdin=subprocess.PIPE
        ) as process:
            yield
            process.stdin.close()


@pytest.fixture
def robot(tmp_path) -> Robot:
    return Robot(tmp_path)


def index_of(folder: Path, positions, headings=None) -> Path:
    """Index of the frames that the camera plays, at these positions."""
    headings = headings or [None] * len(positions)
    records = [
        ImageRecord(f"{number}.png", *known) for number, known in enumerate(zip(positions, headings, strict=True))
    ]
    return indexed(folder, FRAMES, records)


def image_number(message) -> int:
    """Number of the image that an answer or a position is of, which the camera tells in the nanoseconds."""
    if isinstance(message, idl.String):
        return int(json.loads(message.data)["query"].rpartition(".")[2])
    return message.header.stamp.nanosec


def indexed(folder: Path, images: list[np.ndarray], records: list[ImageRecord]) -> Path:
    """Index of these images under the names of their records."""
    photos = folder / "photos"
    photos.mkdir()
    for number, pixels in enumerate(images):
        PIL.Image.fromarray(pixels).save(photos / (records[number].path if number < len(records) else f"{number}.png"))
    extractor = load_extractor("sift-vlad")
    PlaceIndex.create(folder / "index", extractor.spec, photos, codec="float16").add(records, extractor)
    return folder / "index"


def values_of(status) -> dict[str, str]:
    return {value.key: value.value for value in status.status[0].values}


def rank_one(message) -> str:
    return json.loads(message.data)["matches"][0]["image"]


@pytest.mark.slow
def test_a_camera_gets_answers_and_fixes(robot, tmp_path):
    index = index_of(tmp_path, [GeoPosition(48.0 + number / 100, 2.0) for number in range(5)])
    for topic in ("/vpr_dhe/answer", "/diagnostics", "/vpr_dhe/matches/compressed"):
        robot.listen(topic)
    robot.listen("/vpr_dhe/fix", "/gps/visual")
    options = ("--min-inliers", 4, "--remap", "/vpr_dhe/fix:=/gps/visual")
    with robot.node(index, *options) as node, robot.camera():
        answer = robot.wait("/vpr_dhe/answer")
        assert rank_one(answer) == f"{image_number(answer)}.png"
        fix = robot.wait("/gps/visual")
        assert fix.header.frame_id == "camera"
        assert fix.latitude == pytest.approx(48.0 + fix.header.stamp.nanosec / 100)
        assert (fix.status.status, fix.position_covariance_type) == (0, 1)
        assert fix.position_covariance[0] > 0
        assert fix.position_covariance[8] == 1e6
        # The first status may be of the time before the first image.
        status = robot.wait("/diagnostics", lambda message: float(values_of(message)["images per second"]) > 0)
        assert (status.status[0].level, status.status[0].message) == (0, "localizing")
        assert values_of(status)["index images"] == "5"
        picture = robot.wait("/vpr_dhe/matches/compressed")
        assert (picture.format, bytes(picture.data[:2])) == ("jpeg", b"\xff\xd8")
        node.send_signal(signal.SIGTERM)
        assert node.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_a_map_in_metres_gets_poses_and_follows_its_index(robot, tmp_path):
    index = index_of(tmp_path, [MetricPosition(10.0 * number, 5.0) for number in range(4)], [0.0, 90.0, 0.0, 0.0])
    robot.listen("/diagnostics")
    for topic in ("/vpr_dhe/answer", "/vpr_dhe/pose", "/initialpose"):
        robot.listen(topic, f"/robot1{topic}")
    options = ("--min-inliers", 4, "--compressed", "--image", "/eye/compressed", "--namespace", "robot1")
    with robot.node(index, *options, "--initial-pose") as node:
        with robot.camera(FRAMES, "/eye/compressed", "compressed"):
            pose = robot.wait("/robot1/vpr_dhe/pose", lambda message: message.header.stamp.nanosec == 1)
            assert pose.header.frame_id == "map"
            at = pose.pose.pose
            assert (at.position.y, at.orientation.z, at.orientation.w) == pytest.approx((5.0, 0.0, 1.0))
            assert np.diag(np.reshape(pose.pose.covariance, (6, 6)))[2:5].tolist() == [1e6] * 3
            assert 0 < pose.pose.covariance[35] < 1
            assert robot.wait("/robot1/initialpose").header.frame_id == "map"
            # The last image becomes known while the node runs.
            grown = PlaceIndex.open(index)
            grown.add([ImageRecord("4.png", MetricPosition(500.0, 5.0))], load_extractor("sift-vlad"))
            robot.wait("/robot1/vpr_dhe/pose", lambda message: message.pose.pose.position.x > 400)
        robot.wait("/diagnostics", lambda message: message.status[0].level == 3)
        # A camera that comes back, with images of another size.
        larger = [np.kron(pixels, np.ones((2, 2, 1), np.uint8)) for pixels in FRAMES]
        with robot.camera(larger, "/eye/compressed", "compressed"):
            robot.wait("/diagnostics", lambda message: message.status[0].level == 0)
            robot.wait("/robot1/vpr_dhe/answer", lambda message: rank_one(message) == "2.png")
        node.send_signal(signal.SIGINT)
        assert node.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_a_sequence_follows_the_camera_by_its_odometry(robot, tmp_path):
    index = index_of(tmp_path, [GeoPosition(48.0 + number / 1e5, 2.0) for number in range(5)])
    robot.listen("/vpr_dhe/answer")
    robot.listen("/vpr_dhe/pose")
    options = ("--sequence", "--odometry", "/odom", "--map-origin", "48,2,90", "--verifier", "magsac")
    with robot.node(index, *options) as node, robot.camera(FRAMES, "/camera/image_raw", "raw", "/odom"):
        answer = robot.wait("/vpr_dhe/answer", lambda message: "belief" in json.loads(message.data))
        assert json.loads(answer.data)["belief"]["places"]
        pose = robot.wait("/vpr_dhe/pose")
        assert abs(pose.pose.pose.position.x) < 0.1
        assert -1 < pose.pose.pose.position.y < 5
        node.terminate()
        assert node.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_another_pose_is_given_on_request(robot, tmp_path):
    index = index_of(tmp_path, [MetricPosition(10.0 * number, 5.0) for number in range(5)])
    robot.listen("/initialpose")
    topic = Topic(robot.participant, dds_topic("/vpr_dhe/localize"), idl.Empty)
    requests = DataWriter(robot.participant, topic, qos=Qos(Policy.Reliability.BestEffort))
    with robot.node(index, "--min-inliers", 4, "--initial-pose"), robot.camera():
        robot.wait("/initialpose")
        # A request may come before the node has found its publisher, and is lost then.
        robot.wait("/initialpose", before_each=lambda: requests.write(idl.Empty()))


CORRIDOR = "train_open/rtabmap_corridor"


def corridor(real_images: Path, numbers) -> list[np.ndarray]:
    return [decode_image(real_images / CORRIDOR / f"frame_{number:03d}.jpg") for number in numbers]


def play_corridor(robot: Robot, tmp_path: Path, real_images: Path, known: range, seen: range) -> list[bool]:
    """Index frames of the first round, play frames of the second, and tell which were found within three frames.

    A frame shows the corridor as the one 39 to 41 before it.
    """
    records = [ImageRecord(f"{number}.png", MetricPosition(0.5 * number, 0.0)) for number in known]
    index = indexed(tmp_path, corridor(real_images, known), records)
    robot.listen("/vpr_dhe/answer")
    with robot.node(index, "--rerank", 10), robot.camera(corridor(real_images, seen)):
        answers = robot.collect("/vpr_dhe/answer", len(seen))
    return [
        abs(int(rank_one(answer).removesuffix(".png")) + 40 - seen[number]) <= 3 for number, answer in answers.items()
    ]


@pytest.mark.data
@pytest.mark.slow
def test_a_corridor_is_recognised_in_the_second_round(robot, tmp_path, real_images):
    right = play_corridor(robot, tmp_path, real_images, range(4, 44, 4), range(46, 84, 10))
    assert sum(right) >= 3


@pytest.mark.slow
@pytest.mark.data
def test_a_whole_corridor_is_recognised_in_the_second_round(robot, tmp_path, real_images):
    right = play_corridor(robot, tmp_path, real_images, range(1, 44), range(44, 84))
    assert sum(right) >= 0.8 * len(right)  # 35 of 40 were


def drive_through_town(robot: Robot, tmp_path: Path, spacing_m: float, frames: int) -> list[float]:
    """Errors in metres of a robot's poses on a drive along a street, its camera 1 m ahead of its base."""
    town = SyntheticTown(0, streets=2)
    street = town.streets[0]

    def view(along_m: float, right_m: float) -> tuple[Camera, np.ndarray]:
        camera = Camera(*street.point(along_m, right_m), 1.8, street.heading_deg, pitch_deg=7.0)
        return camera, town.render(camera)

    known = [view(float(along), 0.0) for along in np.arange(street.start_m + 4, street.end_m - 10, spacing_m)]
    driven = [view(float(along), 1.0) for along in np.linspace(street.start_m + 6, street.end_m - 12, frames)]
    records = [
        ImageRecord(f"{number:03d}.png", MetricPosition(camera.x_m, camera.y_m), camera.heading_deg)
        for number, (camera, _) in enumerate(known)
    ]
    index = indexed(tmp_path, [pixels for _, pixels in known], records)
    # Published before the node is there, as robots do.
    to_camera = idl.Transform(idl.Vector3(1.0, 0.0, 1.8), idl.Quaternion(-0.5, 0.5, -0.5, 0.5))
    topic = Topic(robot.participant, dds_topic("/tf_static"), idl.TFMessage)
    static = Qos(Policy.Reliability.Reliable(10**8), Policy.Durability.TransientLocal, Policy.History.KeepLast(1))
    writer = DataWriter(robot.participant, topic, qos=static)
    writer.write(idl.TFMessage([idl.TransformStamped(idl.Header(frame_id="base_link"), "camera", to_camera)]))
    # The odometry begins at its own origin, ahead along x.
    odometry = np.array([(camera.y_m - driven[0][0].y_m, 0.0, 0.0) for camera, _ in driven])
    robot.listen("/vpr_dhe/pose")
    options = ("--sequence", "--odometry", "/odom", "--base-frame", "base_link", "--rerank", 10)
    images = [pixels for _, pixels in driven]
    with robot.node(index, *options), robot.camera(images, "/camera/image_raw", "raw", "/odom", poses=odometry):
        poses = robot.collect("/vpr_dhe/pose", frames - 1)
    errors = []
    for number, message in poses.items():
        at, camera = message.pose.pose, driven[number][0]
        # The street goes north.
        assert (at.orientation.z, at.orientation.w) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
        errors.append(math.hypot(at.position.x - camera.x_m, at.position.y - (camera.y_m - 1.0)))
    return errors


@pytest.mark.slow
def test_a_robot_is_followed_through_the_town(robot, tmp_path):
    assert float(np.median(drive_through_town(robot, tmp_path, 10.0, 6))) < 6.0


@pytest.mark.slow
def test_a_robot_is_followed_along_a_whole_street(robot, tmp_path):
    errors = drive_through_town(robot, tmp_path, 5.0, 20)
    assert float(np.median(errors)) < 4.0
    assert float(np.quantile(errors, 0.9)) < 10.0
