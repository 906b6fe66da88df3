"""Publication of positions of the robot's base or camera, from sufficiently certain answers."""

import math

import numpy as np
from jaxtyping import Float64

from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.integrations.ros2.cdr import CameraImage
from vpr_dhe.integrations.ros2.messages import UNKNOWN_VARIANCE, Fix, MapPose
from vpr_dhe.integrations.ros2.mount import Mount
from vpr_dhe.integrations.ros2.settings import NodeSettings, Publishers
from vpr_dhe.localization.confidence import MIN_SURE, confidence_of
from vpr_dhe.records import GeoPosition
from vpr_dhe.report.tables.answers import Answer
from vpr_dhe.report.tables.positions import QueryPosition, query_position

# Variance per axis of a uniform disc with the radius of a place, and variance of the heading of a matching image.
_PLACE_M2 = RADIUS_M**2 / 4
_HEADING_RAD2 = math.radians(15) ** 2


def sure_position(answer: Answer, settings: NodeSettings) -> QueryPosition | None:
    """Position of an answer, if it is certain enough to be published."""
    least = settings.min_probability or 0.0
    if answer.belief is not None:
        best = answer.belief.best
        return None if best is None or best.probability < least else query_position(answer)
    matches = answer.localization.matches if answer.localization else ()
    if not matches:
        return None
    checked = matches[0].verification is not None
    return None if checked and matches[0].inliers < settings.min_inliers else query_position(answer)


class PositionPublisher:
    """Publisher of fixes, poses, and the initial pose.

    Args:
        publishers: publishers of the node.
        settings: settings of the node.
    """

    def __init__(self, publishers: Publishers, settings: NodeSettings) -> None:
        self._publishers, self._settings = publishers, settings
        self._wants_initial = settings.initial_pose

    def request_initial(self) -> None:
        """Publish the next certain position as initial pose."""
        self._wants_initial = True

    def publish(self, message: CameraImage, answer: Answer, place: QueryPosition, mount: Mount) -> None:
        """Publish a fix if the position is in degrees and the map has no origin, else a pose in the map.

        The position is that of the base.
        """
        heading = mount.base_heading_deg(_camera_heading_deg(answer, place))
        position = mount.base_position(place.position, heading)
        covariance = mount.base_covariance(_covariance(place), heading, _HEADING_RAD2)
        map = self._settings.map
        if (metres := map.metres(position)) is not None:
            yaw = None if heading is None else map.yaw_rad(heading)
            pose = MapPose(
                message.stamp,
                self._settings.map_frame,
                *metres,
                map.covariance(covariance),
                yaw,
                UNKNOWN_VARIANCE if yaw is None else _HEADING_RAD2,
            )
            self._publishers.pose.publish(pose)
            self._publish_initial(pose, answer)
        elif isinstance(position, GeoPosition):
            frame = self._settings.base_frame or message.frame_id
            self._publishers.fix.publish(Fix(message.stamp, frame, position, covariance))

    def _publish_initial(self, pose: MapPose, answer: Answer) -> None:
        """Publish a requested initial pose once there are subscribers, because later subscribers do not get it."""
        initial = self._publishers.initial_pose
        if self._wants_initial and initial is not None and initial.has_subscribers and _may_be_initial(answer):
            self._wants_initial = False
            initial.publish(pose)


def _may_be_initial(answer: Answer) -> bool:
    """Whether a published position may also start a navigation: a place of a sequence, or a probability, must be sure.

    Matches without a probability have enough inliers already.
    """
    if answer.belief is not None:
        best = answer.belief.best
        return best is not None and best.probability >= MIN_SURE
    return confidence_of(answer.localization) in (None, "sure")


def _covariance(place: QueryPosition) -> Float64[np.ndarray, "2 2"]:
    """Covariance of an estimate, or of a place for the position of an indexed image."""
    return np.eye(2) * _PLACE_M2 if place.estimate is None else place.estimate.covariance_m2


def _camera_heading_deg(answer: Answer, place: QueryPosition) -> float | None:
    """Heading of the camera, or of the matching image, which has a similar heading."""
    if place.heading_deg is not None:
        return place.heading_deg
    matches = answer.localization.matches if answer.localization else ()
    if answer.belief is not None and answer.belief.best is not None:
        image = answer.belief.best.image
        return next((match.heading_deg for match in matches if match.image == image), None)
    return matches[0].heading_deg if matches else None
