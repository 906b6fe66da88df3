"""Settings and publishers of the node."""

from dataclasses import dataclass, field

from vpr_dhe.integrations.ros2.map_frame import MapFrame
from vpr_dhe.integrations.ros2.messages import Publisher
from vpr_dhe.integrations.ros2.mount import Mount


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the node.

    Args:
        min_inliers: minimum inliers of a match for its position to be published.
        min_probability: minimum probability of a match, or of the place in a sequence; needs a calibrated index, except
            in a sequence.
        map_frame: name of the frame of poses.
        map: origin and direction of that frame.
        base_frame: name of the robot's frame, whose position is published; None publishes that of the camera.
        mount: mount of the camera in that frame; None takes it from the static transforms.
        within_m: radius of the search around a prior position.
        sequence: whether to track the camera over the sequence of images.
        use_odometry: whether to bound the motion in a sequence by odometry.
        initial_pose: whether to publish an initial pose once it is certain, and again on request. In a sequence, and of
            matches with a probability, it needs a probability of at least 0.9.
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
