"""`vpr-dhe ros2`: node of ROS 2 over an index."""

import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.options import IndexArgument, IndexModelOptions, RankingOptions, open_localizer
from vpr_dhe.cli.shared.progress import note_default_calibration, print_stderr, warn_of_calibration
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.integrations.ros2.graph import Names
    from vpr_dhe.integrations.ros2.node import LocalizationNode
    from vpr_dhe.integrations.ros2.settings import NodeSettings, Publishers
    from vpr_dhe.integrations.ros2.transport import DdsTransport
    from vpr_dhe.localization.localizer import Localizer

NAME = "ros2"
EXAMPLES = """
vpr-dhe ros2 my-index --image /camera/image_raw
vpr-dhe ros2 my-index --image /camera/image_raw/compressed --compressed --min-probability 0.9
vpr-dhe ros2 my-index --map-origin 49.234,7.002,90 --initial-pose
vpr-dhe ros2 my-index --base-frame base_link
vpr-dhe ros2 my-index --sequence --odometry /odom --namespace robot1
"""
_TOPICS, _POSITIONS, _SEQUENCE = "Topics", "Positions", "Sequence"


def run(
    index: IndexArgument,
    verification: RankingOptions,
    model: IndexModelOptions,
    image: Annotated[
        str, typer.Option(metavar="TOPIC", rich_help_panel=_TOPICS, help="Topic of the camera's images.")
    ] = "/camera/image_raw",
    compressed: Annotated[
        bool,
        typer.Option("--compressed", rich_help_panel=_TOPICS, help="Images are sensor_msgs/CompressedImage."),
    ] = False,
    namespace: Annotated[
        str, typer.Option(rich_help_panel=_TOPICS, help="Namespace of the node's own topics, such as /robot1.")
    ] = "/",
    remap: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM:=TO", rich_help_panel=_TOPICS, help="Other name of a topic; may be repeated."),
    ] = None,
    min_inliers: Annotated[
        int, typer.Option(min=0, rich_help_panel=_POSITIONS, help="Minimum inliers of a match to publish a position.")
    ] = 50,
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=_POSITIONS,
            help="Minimum probability of a place to publish a position; best after `vpr-dhe calibrate`.",
        ),
    ] = None,
    map_frame: Annotated[str, typer.Option(rich_help_panel=_POSITIONS, help="Frame of poses.")] = "map",
    map_origin: Annotated[
        str | None,
        typer.Option(
            metavar="LAT,LON,HEADING",
            rich_help_panel=_POSITIONS,
            help="Origin of the map and heading of its x axis (90 is east): poses in metres instead of fixes.",
        ),
    ] = None,
    base_frame: Annotated[
        str | None,
        typer.Option(
            metavar="FRAME",
            rich_help_panel=_POSITIONS,
            help="Publish positions of this frame of the robot, such as base_link, instead of the camera's, by the "
            "transforms of /tf_static.",
        ),
    ] = None,
    camera_pose: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z,ROLL,PITCH,YAW",
            rich_help_panel=_POSITIONS,
            help="Pose of the camera in --base-frame instead of /tf_static, in metres and radians; it looks along x.",
        ),
    ] = None,
    initial_pose: Annotated[
        bool,
        typer.Option(
            "--initial-pose",
            rich_help_panel=_POSITIONS,
            help="Publish the first sure pose on /initialpose, and one more for each std_msgs/Empty on "
            "vpr_dhe/localize.",
        ),
    ] = False,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", rich_help_panel=_POSITIONS, help="Topic of NavSatFix; search only images near the last."
        ),
    ] = None,
    within_m: Annotated[
        float, typer.Option(min=0.001, rich_help_panel=_POSITIONS, help="Radius in metres around a fix of --prior.")
    ] = 100.0,
    sequence: Annotated[
        bool,
        typer.Option("--sequence", rich_help_panel=_SEQUENCE, help="Follow the camera from image to image."),
    ] = False,
    odometry: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", rich_help_panel=_SEQUENCE, help="Topic of nav_msgs/Odometry, for --sequence."),
    ] = None,
) -> None:
    """Localize the images of a ROS 2 topic, without an installation of ROS."""
    if odometry is not None and not sequence:
        raise BadInputError("--odometry is for --sequence; add it, or leave --odometry out")
    if prior is not None and sequence:
        raise BadInputError("--prior is for single images, and --sequence follows the camera; leave one of them out")
    if camera_pose is not None and base_frame is None:
        raise BadInputError(
            "--camera-pose is the camera's pose in a frame of the robot; name that by --base-frame, such as base_link"
        )
    from vpr_dhe.integrations.ros2.graph import Names, cyclone_config, domain_id
    from vpr_dhe.runtime.extras import require_extra

    names = Names.parse(namespace, remap or ())
    topics = {option: names.resolve(name) for option, name in _subscribed(image, prior, odometry).items()}
    require_extra("ros2")
    domain, config = domain_id(), cyclone_config()
    from vpr_dhe.integrations.ros2.map_frame import MapFrame
    from vpr_dhe.integrations.ros2.mount import Mount
    from vpr_dhe.integrations.ros2.node import LocalizationNode, run_node
    from vpr_dhe.integrations.ros2.settings import NodeSettings
    from vpr_dhe.integrations.ros2.transport import DdsTransport

    settings = NodeSettings(
        min_inliers=min_inliers,
        min_probability=min_probability,
        map_frame=map_frame,
        map=MapFrame.parse(map_origin),
        base_frame=base_frame,
        mount=None if camera_pose is None else Mount.parse(camera_pose),
        within_m=within_m,
        sequence=sequence,
        use_odometry=odometry is not None,
        initial_pose=initial_pose,
    )
    localizer = open_localizer(index, verification, model)
    _require_fitting(localizer, settings, prior=prior, map_origin=map_origin)
    if min_probability is not None:
        note_default_calibration(localizer)
    warn_of_calibration(localizer)
    transport = DdsTransport(domain, config)
    publishers = _publishers(transport, names, settings)
    reopen = partial(open_localizer, index, verification, model)
    node = LocalizationNode(localizer, publishers, settings, topic=topics["image"], reopen=reopen, note=print_stderr)
    _subscribe(transport, node, topics, names, compressed=compressed, settings=settings)
    with _stop_signals() as wait:
        transport.start()
        print_stderr(f"{index}: {localizer.database.image_count} images; localizing {topics['image']}")
        run_node(node, wait)
        transport.close()
    # A thread may be inside a network, and the libraries take seconds to unload.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _subscribed(image: str, prior: str | None, odometry: str | None) -> dict[str, str]:
    """Topics to subscribe to, by option."""
    return {"image": image, **({"prior": prior} if prior else {}), **({"odometry": odometry} if odometry else {})}


def _require_fitting(
    localizer: "Localizer", settings: "NodeSettings", *, prior: str | None, map_origin: str | None
) -> None:
    """Raise BadInputError if settings do not fit the index."""
    from vpr_dhe.integrations.ros2.node import require_earth
    from vpr_dhe.localization.database import VerifiedIndex
    from vpr_dhe.sequences.sequence_localizer import require_all_verified

    assert isinstance(localizer.database, VerifiedIndex), "opened by Localizer.open"
    index = localizer.database.index
    for option, given in (("--prior", prior), ("--map-origin", map_origin)):
        if given is not None:
            require_earth(index, option)
    if settings.use_odometry and not index.snapshot.worlds:
        raise BadInputError(
            f"--odometry needs positions, and {index.folder} has none; leave it out, or index the images with "
            "--positions"
        )
    if settings.sequence:
        require_all_verified(localizer.stop_early)


def _publishers(transport: "DdsTransport", names: "Names", settings: "NodeSettings") -> "Publishers":
    from vpr_dhe.integrations.ros2.cdr import CompressedImage
    from vpr_dhe.integrations.ros2.messages import Diagnostics, Fix, MapPose, Text
    from vpr_dhe.integrations.ros2.settings import Publishers

    def publisher(kind: type, name: str):
        return transport.publisher(kind, names.resolve(name))

    return Publishers(
        answer=publisher(Text, "vpr_dhe/answer"),
        fix=publisher(Fix, "vpr_dhe/fix"),
        pose=publisher(MapPose, "vpr_dhe/pose"),
        matches=publisher(CompressedImage, "vpr_dhe/matches/compressed"),
        diagnostics=publisher(Diagnostics, "/diagnostics"),
        initial_pose=publisher(MapPose, "initialpose") if settings.initial_pose else None,
    )


def _subscribe(
    transport: "DdsTransport",
    node: "LocalizationNode",
    topics: dict[str, str],
    names: "Names",
    *,
    compressed: bool,
    settings: "NodeSettings",
) -> None:
    transport.subscribe_images(topics["image"], node.offer, compressed=compressed)
    if "prior" in topics:
        transport.subscribe_fixes(topics["prior"], node.use_prior)
    if "odometry" in topics:
        transport.subscribe_odometry(topics["odometry"], node.follow_odometry)
    if settings.base_frame is not None and settings.mount is None:
        transport.subscribe_static_transforms(names.resolve("/tf_static"), node.use_transforms)
    if settings.initial_pose:
        transport.subscribe_requests(names.resolve("vpr_dhe/localize"), node.request_initial_pose)


@contextmanager
def _stop_signals() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for SIGTERM or SIGINT, up to a timeout in seconds; True if one has come.

    A handler in Python runs only between instructions of the main thread; so the interpreter writes to a socket.
    """
    ours, woken = socket.socketpair()
    woken.setblocking(False)
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    fd_before = signal.set_wakeup_fd(woken.fileno())
    try:
        yield lambda timeout_s: bool(select.select([ours], [], [], timeout_s)[0])
    finally:
        signal.set_wakeup_fd(fd_before)
        for one, handler in before.items():
            signal.signal(one, handler)
        ours.close()
        woken.close()
