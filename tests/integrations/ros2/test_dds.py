"""`vpr-dhe ros2` over real DDS on the loopback interface, with a camera in a process of its own."""

import json
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
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from tests.integrations.ros2 import lo
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.integrations.ros2 import idl
from vpr_dhe.integrations.ros2.graph import dds_topic
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition

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

    def wait(self, topic: str, fits=lambda message: True):
        """The first message of a topic that fits."""
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            for message in self.readers[topic].take(10):
                if fits(message):
                    return message
            time.sleep(0.02)
        raise TimeoutError(f"nothing that fits came on {topic}\n{(self.folder / 'node.log').read_text()}")

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
    def camera(self, images=FRAMES, topic="/camera/image_raw", kind="raw", *more: str) -> Iterator[None]:
        np.savez(self.folder / "images.npz", *images)
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
    photos = folder / "photos"
    photos.mkdir()
    for number, pixels in enumerate(FRAMES):
        PIL.Image.fromarray(pixels).save(photos / f"{number}.png")
    extractor = load_extractor("sift-vlad")
    index = PlaceIndex.create(folder / "index", extractor.spec, photos, codec="float16")
    records = [
        ImageRecord(f"{number}.png", position, None if headings is None else headings[number])
        for number, position in enumerate(positions)
    ]
    index.add(records, extractor)
    return folder / "index"


def rank_one(message) -> str:
    return json.loads(message.data)["matches"][0]["image"]


def test_a_camera_gets_answers_and_fixes(robot, tmp_path):
    index = index_of(tmp_path, [GeoPosition(48.0 + number / 100, 2.0) for number in range(5)])
    for topic in ("/vpr_dhe/answer", "/diagnostics", "/vpr_dhe/matches/compressed"):
        robot.listen(topic)
    robot.listen("/vpr_dhe/fix", "/gps/visual")
    options = ("--min-inliers", 4, "--remap", "/vpr_dhe/fix:=/gps/visual")
    with robot.node(index, *options) as node, robot.camera():
        # The camera tells the number of the image in the nanoseconds.
        answer = robot.wait("/vpr_dhe/answer")
        query = json.loads(answer.data)["query"]
        assert rank_one(answer) == f"{int(query.rpartition('.')[2])}.png"
        fix = robot.wait("/gps/visual")
        assert fix.header.frame_id == "camera"
        assert fix.latitude == pytest.approx(48.0 + fix.header.stamp.nanosec / 100)
        assert (fix.status.status, fix.position_covariance_type) == (0, 1)
        assert fix.position_covariance[0] > 0
        assert fix.position_covariance[8] == 1e6
        status = robot.wait("/diagnostics", lambda message: message.status[0].message == "localizing").status[0]
        values = {value.key: value.value for value in status.values}
        assert (status.level, values["index images"]) == (0, "5")
        assert float(values["images per second"]) > 0
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
