"""Run of the node over DDS: its topics, and the signals that end it."""

import logging
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vpr_dhe.errors import BadInputError
from vpr_dhe.integrations.ros2.cdr import CompressedImage
from vpr_dhe.integrations.ros2.graph import Topics
from vpr_dhe.integrations.ros2.messages import Diagnostics, Fix, MapPose, Publisher, Text
from vpr_dhe.integrations.ros2.node import LocalizationNode, require_earth, run_node
from vpr_dhe.integrations.ros2.settings import NodeSettings, Publishers
from vpr_dhe.integrations.ros2.transport import DdsTransport
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.sequences.sequence_localizer import require_all_verified

_log = logging.getLogger(__name__)


def run_ros2(
    localizer: Localizer,
    settings: NodeSettings,
    topics: Topics,
    *,
    domain: int = 0,
    config: str = "",
    reopen: Callable[[], Localizer] | None = None,
    note: Callable[[str], object] = _log.warning,
) -> None:
    """Localize the images of a topic until SIGTERM or SIGINT; call it in the main thread.

    Args:
        localizer: over an index on this machine.
        settings: of the node.
        topics: that the node reads and writes.
        domain: number of the domain, as `graph.domain_id` reads it.
        config: configuration of Cyclone DDS, as `graph.cyclone_config` makes it.
        reopen: opens the index again, for one that is replaced by an index of another model.
        note: called with sentences for people.

    Raises:
        BadInputError: if settings and topics do not fit the index, or the domain cannot be joined.
    """
    index = localizer.index
    require_fitting(localizer, settings, topics)
    transport = DdsTransport(domain, config)
    publishers = _publishers(transport, topics, settings)
    node = LocalizationNode(localizer, publishers, settings, topic=topics.image, reopen=reopen, note=note)
    _subscribe(transport, node, topics, settings)
    with _stop_signals() as wait:
        transport.start()
        note(f"{index.folder}: {len(index)} images; localizing {topics.image}")
        try:
            run_node(node, wait)
        finally:
            transport.close()


def require_fitting(localizer: Localizer, settings: NodeSettings, topics: Topics) -> None:
    """Raise BadInputError if settings and topics do not fit the index."""
    index = localizer.index
    for option, given in (("--prior", topics.prior), ("--map-origin", settings.map.origin)):
        if given is not None:
            require_earth(index, option)
    if settings.initial_pose and settings.map.origin is None and not index.snapshot.has_metres:
        raise BadInputError(
            f"--initial-pose needs positions in metres, and {index.folder} has none; add --map-origin, or index "
            "the images with --positions in metres"
        )
    if (
        settings.initial_pose
        and not settings.sequence
        and not (localizer.database.pinned().verifies or localizer.calibration)
    ):
        raise BadInputError(
            "--initial-pose needs a verifier or a calibration, which tell right matches from wrong ones; leave out "
            "--verifier none, or run `vpr-dhe calibrate`"
        )
    if settings.use_odometry and len(frames := index.snapshot.reference_frames) != 1:
        found = f"has them in {len(frames)} frames ({', '.join(sorted(frames))})" if frames else "has none"
        raise BadInputError(
            f"--odometry needs positions in one frame, and {index.folder} {found}; leave it out, or index the images "
            "with --positions"
        )
    if settings.sequence:
        require_all_verified(localizer.stop_early)


def _publishers(transport: DdsTransport, topics: Topics, settings: NodeSettings) -> Publishers:
    def publisher(kind: type, name: str) -> Publisher:
        return transport.publisher(kind, topics.names.resolve(name))

    return Publishers(
        answer=publisher(Text, "vpr_dhe/answer"),
        fix=publisher(Fix, "vpr_dhe/fix"),
        pose=publisher(MapPose, "vpr_dhe/pose"),
        matches=publisher(CompressedImage, "vpr_dhe/matches/compressed"),
        diagnostics=publisher(Diagnostics, "/diagnostics"),
        initial_pose=publisher(MapPose, "initialpose") if settings.initial_pose else None,
    )


def _subscribe(transport: DdsTransport, node: LocalizationNode, topics: Topics, settings: NodeSettings) -> None:
    transport.subscribe_images(topics.image, node.offer, compressed=topics.compressed)
    if topics.prior is not None:
        transport.subscribe_fixes(topics.prior, node.use_prior)
    if topics.odometry is not None:
        transport.subscribe_odometry(topics.odometry, node.follow_odometry)
    if settings.base_frame is not None and settings.mount is None:
        transport.subscribe_static_transforms(topics.names.resolve("/tf_static"), node.use_transforms)
    if settings.initial_pose:
        transport.subscribe_requests(topics.names.resolve("vpr_dhe/localize"), node.request_initial_pose)


@contextmanager
def _stop_signals() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for SIGTERM or SIGINT, up to a timeout in seconds; True if one has come.

    A handler in Python runs only between instructions of the main thread; so the interpreter writes to a socket.
    """
    ours, woken = socket.socketpair()
    woken.setblocking(False)
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    fd_before = signal.set_wakeup_fd(woken.fileno())
    arrival = select.poll()  # `select` takes no descriptor above 1023, which a large index reaches
    arrival.register(ours, select.POLLIN)
    try:
        yield lambda timeout_s: bool(arrival.poll(1e3 * timeout_s))
    finally:
        signal.set_wakeup_fd(fd_before)
        for one, handler in before.items():
            signal.signal(one, handler)
        ours.close()
        woken.close()
