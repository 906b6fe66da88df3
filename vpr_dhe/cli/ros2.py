"""`vpr-dhe ros2`: node of ROS 2 over an index."""

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.options import IndexArgument, IndexModelOptions, RankingOptions, open_localizer
from vpr_dhe.cli.shared.progress import note_default_calibration, print_stderr, warn_of_calibration
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.integrations.ros2.graph import Topics
    from vpr_dhe.integrations.ros2.settings import NodeSettings

NAME = "ros2"
EXAMPLES = """
vpr-dhe ros2 my-index --image /camera/image_raw
vpr-dhe ros2 my-index --image /camera/image_raw/compressed --compressed --min-probability 0.9
vpr-dhe ros2 my-index --map-origin 49.234,7.002,90 --initial-pose
vpr-dhe ros2 my-index --base-frame base_link
vpr-dhe ros2 my-index --sequence --odometry /odom --namespace robot1
"""


@dataclass(frozen=True)
class TopicOptions:
    """Topic of the camera, and names of the node's own topics."""

    TITLE = "Topics"

    image: Annotated[str, typer.Option(metavar="TOPIC", help="Topic of the camera's images.")] = "/camera/image_raw"
    compressed: Annotated[bool, typer.Option("--compressed", help="Images are sensor_msgs/CompressedImage.")] = False
    namespace: Annotated[str, typer.Option(help="Namespace of the node's own topics, such as /robot1.")] = "/"
    remap: Annotated[
        list[str] | None, typer.Option(metavar="FROM:=TO", help="Other name of a topic; may be repeated.")
    ] = None


@dataclass(frozen=True)
class PositionOptions:
    """Positions that are published, and their frames."""

    TITLE = "Positions"

    min_inliers: Annotated[int, typer.Option(min=0, help="Minimum inliers of a match to publish a position.")] = 50
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Minimum probability of a place to publish a position; best after `vpr-dhe calibrate`.",
        ),
    ] = None
    map_frame: Annotated[str, typer.Option(help="Frame of poses.")] = "map"
    map_origin: Annotated[
        str | None,
        typer.Option(
            metavar="LAT,LON,HEADING",
            help="Origin of the map and heading of its x axis (90 is east): poses in metres instead of fixes.",
        ),
    ] = None
    base_frame: Annotated[
        str | None,
        typer.Option(
            metavar="FRAME",
            help="Publish positions of this frame of the robot, such as base_link, instead of the camera's, by the "
            "transforms of /tf_static.",
        ),
    ] = None
    camera_pose: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z,ROLL,PITCH,YAW",
            help="Pose of the camera in --base-frame instead of /tf_static, in metres and radians; it looks along x.",
        ),
    ] = None
    initial_pose: Annotated[
        bool,
        typer.Option(
            "--initial-pose",
            help="Publish the first sure pose on /initialpose, and one more for each std_msgs/Empty on "
            "vpr_dhe/localize.",
        ),
    ] = False
    prior: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Topic of NavSatFix; search only images near the last.")
    ] = None
    within_m: Annotated[float, typer.Option(min=0.001, help="Radius in metres around a fix of --prior.")] = 100.0


@dataclass(frozen=True)
class TraverseOptions:
    """Treatment of the images as one traverse."""

    TITLE = "Sequence"

    sequence: Annotated[bool, typer.Option("--sequence", help="Follow the camera from image to image.")] = False
    odometry: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Topic of nav_msgs/Odometry, for --sequence.")
    ] = None


def run(
    index: IndexArgument,
    verification: RankingOptions,
    model: IndexModelOptions,
    topics: TopicOptions,
    positions: PositionOptions,
    traverse: TraverseOptions,
) -> None:
    """Localize the images of a ROS 2 topic, without an installation of ROS."""
    _require_consistent(positions, traverse)
    from vpr_dhe.integrations.ros2.graph import cyclone_config, domain_id
    from vpr_dhe.runtime.extras import require_extra

    resolved = _resolved(topics, positions, traverse)
    require_extra("ros2")
    domain, config = domain_id(), cyclone_config()
    from vpr_dhe.integrations.ros2.run import run_ros2

    settings = _settings(positions, traverse)
    reopen = partial(open_localizer, index, verification, model)
    localizer = reopen()
    if positions.min_probability is not None:
        note_default_calibration(localizer)
    warn_of_calibration(localizer)
    run_ros2(localizer, settings, resolved, domain=domain, config=config, reopen=reopen, note=print_stderr)
    # A thread may be inside a network, and the libraries take seconds to unload.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _require_consistent(positions: PositionOptions, traverse: TraverseOptions) -> None:
    """Raise BadInputError for options that exclude or need each other."""
    if traverse.odometry is not None and not traverse.sequence:
        raise BadInputError("--odometry is for --sequence; add it, or leave --odometry out")
    if positions.prior is not None and traverse.sequence:
        raise BadInputError("--prior is for single images, and --sequence follows the camera; leave one of them out")
    if positions.camera_pose is not None and positions.base_frame is None:
        raise BadInputError(
            "--camera-pose is the camera's pose in a frame of the robot; name that by --base-frame, such as base_link"
        )


def _resolved(topics: TopicOptions, positions: PositionOptions, traverse: TraverseOptions) -> "Topics":
    from vpr_dhe.integrations.ros2.graph import Names, Topics

    names = Names.parse(topics.namespace, topics.remap or ())
    return Topics.resolve(
        names, topics.image, compressed=topics.compressed, prior=positions.prior, odometry=traverse.odometry
    )


def _settings(positions: PositionOptions, traverse: TraverseOptions) -> "NodeSettings":
    from vpr_dhe.integrations.ros2.map_frame import MapFrame
    from vpr_dhe.integrations.ros2.mount import Mount
    from vpr_dhe.integrations.ros2.settings import NodeSettings

    return NodeSettings(
        min_inliers=positions.min_inliers,
        min_probability=positions.min_probability,
        map_frame=positions.map_frame,
        map=MapFrame.parse(positions.map_origin),
        base_frame=positions.base_frame,
        mount=None if positions.camera_pose is None else Mount.parse(positions.camera_pose),
        within_m=positions.within_m,
        sequence=traverse.sequence,
        use_odometry=traverse.odometry is not None,
        initial_pose=positions.initial_pose,
    )
