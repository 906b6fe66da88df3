"""ROS 2 node that localizes the images of a topic.

    python -m vpr_dhe.integrations.ros2_node --ros-args -p index:=my-index -r image:=/camera/image_raw

It subscribes to `image` and publishes, with the time stamp of the image,

- `~/answer`, std_msgs/String: the matches, as `vpr-dhe query --format jsonl` writes them, for every image;
- `~/fix`, sensor_msgs/NavSatFix, or `~/position`, geometry_msgs/PointStamped, depending on the positions of the index:
  the position of the best match if that is confident. It is where the indexed image was taken, not the camera's pose.

Parameters: `index`; `verifier` and `rerank` as for `vpr-dhe query`; `compressed`, whether images are JPEG or PNG files;
`min_inliers` and, for calibrated indexes, `min_probability` of a confident match; `map_frame`, the frame of positions
in metres; `device`. While the node is busy, a new image replaces the pending one.
"""

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vpr_dhe.errors import BadInputError, ImageError, MissingExtraError, VprDheError
from vpr_dhe.images import decode_pixels
from vpr_dhe.localization.calibration.default import NOTE
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.recordings.ros_messages import compressed_file, pixels_of
from vpr_dhe.records import GeoPosition, RankedMatch
from vpr_dhe.report.tables.answers import Answer, json_line
from vpr_dhe.verification.names import DEFAULT_VERIFIER

_NAME = "vpr_dhe"
# NavSatStatus.STATUS_FIX; new messages have an unknown status.
_STATUS_FIX = 0


@dataclass(frozen=True)
class Parameters:
    """Parameters of the node and their defaults, explained in the module's docstring."""

    index: str = ""
    verifier: str = DEFAULT_VERIFIER
    rerank: int = 100
    compressed: bool = False
    min_inliers: int = 50
    min_probability: float = 0.0
    map_frame: str = "map"
    device: str = "cpu"

    @classmethod
    def declared(cls, node: Any) -> "Parameters":
        """Declare all parameters and read the values given at start."""
        defaults = {field.name: field.default for field in fields(cls)}
        return cls(**{name: node.declare_parameter(name, default).value for name, default in defaults.items()})


class PlaceNode:
    """Localizes images as they arrive.

    Args:
        ros: imports a ROS module by name, as in `ros("sensor_msgs.msg").NavSatFix`.
        node: a node of rclpy.
        parameters: of the node.
        localizer: localizes each image.

    Raises:
        BadInputError: if `min_probability` is set, but the index is not calibrated.
    """

    def __init__(self, ros: Any, node: Any, parameters: Parameters, localizer: Localizer) -> None:
        self._ros, self._node, self._parameters, self._localizer = ros, node, parameters, localizer
        if parameters.min_probability:
            localizer.require_calibration()
            if localizer.calibration_source == "default":
                node.get_logger().warning(NOTE)
        if localizer.calibration_fault:
            node.get_logger().warning(f"answers have no probabilities: {localizer.calibration_fault}")
        sensor, standard, geometry, qos = map(
            ros, ("sensor_msgs.msg", "std_msgs.msg", "geometry_msgs.msg", "rclpy.qos")
        )
        self._answers = node.create_publisher(standard.String, "~/answer", 10)
        self._fixes = node.create_publisher(sensor.NavSatFix, "~/fix", 10)
        self._positions = node.create_publisher(geometry.PointStamped, "~/position", 10)
        # Cameras often publish best-effort, which a reliable subscription does not receive.
        newest = qos.QoSProfile(depth=1, reliability=qos.ReliabilityPolicy.BEST_EFFORT)
        kind = sensor.CompressedImage if parameters.compressed else sensor.Image
        node.create_subscription(kind, "image", self.answer, newest)

    def answer(self, message: Any) -> None:
        """Localize one image; a damaged one is logged and skipped."""
        stamp = message.header.stamp
        try:
            found = self._localizer.localize(
                self._image(message), min_probability=self._parameters.min_probability or None
            )
        except ImageError as error:
            self._node.get_logger().warning(f"image of {stamp.sec}.{stamp.nanosec:09d}: {error}")
            return
        text = json_line(Answer(f"{stamp.sec}.{stamp.nanosec:09d}", found))
        self._answers.publish(self._ros("std_msgs.msg").String(data=text))
        if found.matches and self._is_confident(found.matches[0]):
            self._publish_position(found.matches[0], message.header)

    def _image(self, message: Any) -> np.ndarray:
        """Pixels of a message, of 8 or 16 bits."""
        return decode_pixels(compressed_file(message).content) if self._parameters.compressed else pixels_of(message)

    def _is_confident(self, match: RankedMatch) -> bool:
        return match.verification is None or match.inliers >= self._parameters.min_inliers

    def _publish_position(self, match: RankedMatch, header: Any) -> None:
        position = match.position
        if isinstance(position, GeoPosition):
            fix = self._ros("sensor_msgs.msg").NavSatFix(header=header)
            fix.latitude, fix.longitude = position.latitude_deg, position.longitude_deg
            fix.altitude, fix.status.status = math.nan, _STATUS_FIX
            self._fixes.publish(fix)
        elif position is not None:
            point = self._ros("geometry_msgs.msg").PointStamped()
            point.header.stamp, point.header.frame_id = header.stamp, self._parameters.map_frame
            point.point.x, point.point.y = position.x_m, position.y_m
            self._positions.publish(point)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the node until it is stopped.

    Raises:
        BadInputError: if the index is missing, or does not fit the parameters.
        MissingExtraError: if ROS 2 cannot be imported.
    """
    rclpy = _ros("rclpy")
    rclpy.init(args=arguments)
    try:
        node = rclpy.create_node(_NAME)
        parameters = Parameters.declared(node)
        if not parameters.index:
            raise BadInputError("the parameter index is not set; give --ros-args -p index:=FOLDER")
        chosen = {"verifier": parameters.verifier, "rerank": parameters.rerank, "device": parameters.device}
        PlaceNode(_ros, node, parameters, Localizer.open(Path(parameters.index), **chosen))
        with suppress(KeyboardInterrupt, _ros("rclpy.executors").ExternalShutdownException):
            rclpy.spin(node)
    finally:
        rclpy.try_shutdown()


def _ros(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"the node needs ROS 2, but {module} cannot be imported ({error}); source ROS's setup.bash, and install "
            "vpr-dhe for the Python of that ROS"
        ) from error


if __name__ == "__main__":
    try:
        main()
    except VprDheError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
