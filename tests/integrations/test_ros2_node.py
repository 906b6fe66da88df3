"""The node with a ROS that is not there: what it subscribes to, and what it makes of an image."""

import json
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from recordings import small_frames

from vpr_dhe.errors import BadInputError, MissingExtraError
from vpr_dhe.images import decode_image
from vpr_dhe.integrations import ros2_node
from vpr_dhe.integrations.ros2_node import main
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.recordings.base import png_file
from vpr_dhe.records import GeoPosition, Localization, MetricPosition, RankedMatch, Timing, Verification

STAMP = SimpleNamespace(sec=1_700_000_000, nanosec=5)


class Message(SimpleNamespace):
    """Of any type: fields are there when they are asked for."""

    def __getattr__(self, name: str):
        setattr(self, name, Message())
        return vars(self)[name]


class Ros:
    """Modules of ROS 2 as far as a node needs them; `spin` delivers what is in `images`."""

    def __init__(self, **parameters) -> None:
        self.parameters, self.images = parameters, []
        self.published: list[tuple[str, object]] = []
        self.subscriptions: list[tuple] = []
        self.warnings: list[str] = []
        self.ended = False
        kinds = {
            "rclpy": {
                "init": lambda args: None,
                "create_node": lambda name: self,
                "spin": self._spin,
                "try_shutdown": self._end,
            },
            "rclpy.qos": {"QoSProfile": Message, "ReliabilityPolicy": SimpleNamespace(BEST_EFFORT="best effort")},
            "rclpy.executors": {"ExternalShutdownException": RuntimeError},
            "sensor_msgs.msg": {name: type(name, (Message,), {}) for name in ("Image", "CompressedImage", "NavSatFix")},
            "std_msgs.msg": {"String": Message},
            "geometry_msgs.msg": {"PointStamped": Message},
        }
        self.modules = {name: ModuleType(name) for name in kinds}
        for name, contents in kinds.items():
            vars(self.modules[name]).update(contents)

    def declare_parameter(self, name: str, default: object) -> SimpleNamespace:
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        return SimpleNamespace(publish=lambda message: self.published.append((topic, message)))

    def create_subscription(self, *subscription: object) -> None:
        self.subscriptions.append(subscription)

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(warning=self.warnings.append)

    def _spin(self, node: object) -> None:
        for image in self.images:
            self.subscriptions[0][2](image)
        raise KeyboardInterrupt

    def _end(self) -> None:
        self.ended = True


class FakeLocalizer(Localizer):
    """Always finds one image, of this many inliers."""

    def __init__(self, position, inliers: int, probability: float | None) -> None:
        points = np.zeros((inliers, 2))
        verification = Verification(np.eye(3), float(inliers), points, points)
        self._match = RankedMatch(1, "a.jpg", 0.5, float(inliers), verification, position, probability)
        self.asked: list[np.ndarray] = []
        self.calibration, self.calibration_fault, self.rerank, self.rank_by = None, None, 100, "inliers"

    def require_calibration(self) -> None:
        if self._match.probability is None:
            super().require_calibration()

    def localize(self, image: np.ndarray, *, top_k: int = 5, min_probability: float | None = None) -> Localization:
        self.asked.append(image)
        sure = min_probability is None or self._match.probability >= min_probability
        return Localization((self._match,) if sure else (), Timing(1.0, 1.0, 1.0))


@pytest.fixture
def run(monkeypatch):
    """Run the node over images; returns what ROS and the localizer saw."""

    def start(images, *, position=None, inliers: int = 50, probability=None, **parameters):
        ros = Ros(**({"index": "my-index"} | parameters))
        localizer = FakeLocalizer(position, inliers, probability)
        ros.images = images
        for name, module in ros.modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(ros2_node.Localizer, "open", lambda folder, **chosen: localizer)
        main([])
        assert ros.ended
        return ros, localizer

    return start


def image_message(pixels: np.ndarray, **fields) -> SimpleNamespace:
    height, width = pixels.shape[:2]
    known = {"height": height, "width": width, "step": 3 * width, "encoding": "bgr8", "is_bigendian": 0}
    data = np.ascontiguousarray(pixels[..., ::-1]).tobytes()
    return SimpleNamespace(header=SimpleNamespace(stamp=STAMP, frame_id="camera"), data=data, **(known | fields))


def test_it_asks_with_the_pixels_of_the_message_and_answers_in_json(run):
    pixels = small_frames(1)[0]
    ros, localizer = run([image_message(pixels)])
    np.testing.assert_array_equal(localizer.asked[0], pixels)
    kind, topic, _, quality = ros.subscriptions[0]
    assert (kind.__name__, topic, quality.depth, quality.reliability) == ("Image", "image", 1, "best effort")
    (topic, message), *others = ros.published
    document = json.loads(message.data)
    assert (topic, document["query"], document["matches"][0]["image"]) == ("~/answer", "1700000000.000000005", "a.jpg")
    # The image it was matched with has no position.
    assert not others


def test_compressed_images_are_files(run):
    pixels = small_frames(1)[0]
    message = SimpleNamespace(header=SimpleNamespace(stamp=STAMP), format="png", data=png_file(pixels).content)
    ros, localizer = run([message], compressed=True)
    np.testing.assert_array_equal(localizer.asked[0], decode_image(message.data))
    assert ros.subscriptions[0][0].__name__ == "CompressedImage"


def test_positions_in_degrees_are_fixes(run):
    ros, _ = run([image_message(small_frames(1)[0])], position=GeoPosition(48.5, 2.25))
    topic, fix = ros.published[1]
    assert (topic, fix.latitude, fix.longitude, fix.status.status) == ("~/fix", 48.5, 2.25, 0)
    assert math.isnan(fix.altitude)
    assert fix.header.stamp is STAMP


def test_positions_in_metres_are_points_of_the_map(run):
    ros, _ = run([image_message(small_frames(1)[0])], position=MetricPosition(3.0, 4.0), map_frame="site")
    topic, message = ros.published[1]
    assert (topic, message.point.x, message.point.y, message.header.frame_id) == ("~/position", 3.0, 4.0, "site")
    assert message.header.stamp is STAMP


@pytest.mark.parametrize(
    ("inliers", "probability", "published"), [(50, None, 2), (49, None, 1), (50, 0.9, 2), (50, 0.7, 1)]
)
def test_only_a_match_that_is_sure_enough_has_a_position(run, inliers, probability, published):
    least = 0.0 if probability is None else 0.8
    ros, _ = run(
        [image_message(small_frames(1)[0])],
        position=GeoPosition(48.5, 2.25),
        inliers=inliers,
        probability=probability,
        min_probability=least,
    )
    assert len(ros.published) == published


def test_damaged_images_are_left_out(run):
    pixels = small_frames(1)[0]
    ros, localizer = run([image_message(pixels, height=1000), image_message(pixels)])
    assert len(localizer.asked) == 1
    assert "the message is damaged" in ros.warnings[0]


def test_mistakes_are_said(run, monkeypatch):
    with pytest.raises(BadInputError, match="the index is not calibrated"):
        run([image_message(small_frames(1)[0])], min_probability=0.5)
    with pytest.raises(BadInputError, match="parameter index is not set"):
        run([], index="")
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(MissingExtraError, match=r"rclpy cannot be imported .*; source ROS's setup.bash"):
        main([])
