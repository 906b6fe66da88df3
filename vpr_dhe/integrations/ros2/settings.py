"""Settings and publishers of the node."""

from dataclasses import dataclass, field

from vpr_dhe.integrations.ros2.map_frame import MapFrame
from vpr_dhe.integrations.ros2.messages import Publisher
from vpr_dhe.integrations.ros2.mount import Mount


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the node.

    Args:
        min_inliers: inliers of a match whose position is published.
        min_probability: probability of one, or of the place in a sequence; needs a calibrated index, except there.
        map_frame: name of the frame of poses.
        map: its origin and direction.
        base_frame: name of the frame of the robot, whose position is published; None for the camera's own.
        mount: of the camera in that frame; None for that of the static transforms.
        within_m: radius of the search around a prior position.
        sequence: follow the camera from image to image.
        use_odometry: bound the motion in a sequence by odometry.
        initial_pose: publish a pose once when sure, and again on request.
    """

    min_inliers: int = 50
    min_probability: float | None = None
    map_frame: str = "map"
    map: MapFrame = field(default_factory=MapFrame)
    base_frame: str | None = None
    mount: Mount | None = None
    within_m: float = 100.0
    sequence: bool = False
    use_odometry: bool = False
    initial_pose: bool = False


@dataclass(frozen=True)
class Publishers:
    """Publishers of the node, one per topic."""

    answer: Publisher
    fix: Publisher
    pose: Publisher
    matches: Publisher
    diagnostics: Publisher
    initial_pose: Publisher | None = None
