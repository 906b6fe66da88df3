"""Topic names and discovery settings by the conventions of ROS 2.

Sources: "Topic and Service name mapping to DDS" and "Remapping Names", design.ros2.org; `check_create_domain` of
rmw_cyclonedds_cpp 2.2 (Jazzy); "Improved Dynamic Discovery", docs.ros.org.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from vpr_dhe.errors import BadInputError

_NAME = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_MAX_DOMAIN = 232
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")


@dataclass(frozen=True)
class Names:
    """Resolution of topic names: relative ones in a namespace, then remapped.

    Args:
        namespace: namespace, such as `/robot1`; `/` is the root.
        remapped: new names by old names, both resolved.
    """

    namespace: str = "/"
    remapped: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, namespace: str, remappings: Sequence[str] = ()) -> "Names":
        """Read a namespace, and remappings such as `FROM:=TO`.

        Raises:
            BadInputError: if one of them is not a valid name of ROS 2.
        """
        short = namespace.strip("/")
        bare = cls(f"/{_require_name(short)}" if short else "/")
        remapped: dict[str, str] = {}
        for text in remappings:
            before, assigns, after = text.partition(":=")
            if not assigns:
                raise BadInputError(f"--remap is {text!r}; expected FROM:=TO, such as /vpr_dhe/fix:=/gps/visual")
            remapped[bare.resolve(before)] = bare.resolve(after)
        return cls(bare.namespace, remapped)

    def resolve(self, name: str) -> str:
        """Full name of a topic, beginning with a slash.

        Raises:
            BadInputError: if it is not a valid name of ROS 2.
        """
        _require_name(name)
        full = name if name.startswith("/") else f"{self.namespace.rstrip('/')}/{name}"
        return (self.remapped or {}).get(full, full)


@dataclass(frozen=True)
class Topics:
    """Topics of a node by their full names, and the names of those that it publishes.

    Args:
        names: resolution of the names of other topics.
        image: of the camera.
        compressed: images are sensor_msgs/CompressedImage.
        prior: of satellite fixes around which images are searched; None for none.
        odometry: of nav_msgs/Odometry; None for none.
    """

    names: Names
    image: str
    compressed: bool = False
    prior: str | None = None
    odometry: str | None = None

    @classmethod
    def resolve(
        cls, names: Names, image: str, *, compressed: bool, prior: str | None, odometry: str | None
    ) -> "Topics":
        """Resolve the names of topics.

        Raises:
            BadInputError: if one is no name of ROS 2.
        """
        prior, odometry = (names.resolve(name) if name else None for name in (prior, odometry))
        return cls(names, names.resolve(image), compressed, prior, odometry)


def _require_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{name!r} is not a topic name; expected letters, digits and underscores between slashes, such as "
            "/camera/image_raw"
        )
    return name


def dds_topic(name: str) -> str:
    """Name in DDS of a topic with a full name."""
    return f"rt{name}"


def domain_id(environment: Mapping[str, str] = os.environ) -> int:
    """Read the domain from ROS_DOMAIN_ID; 0 by default.

    Raises:
        BadInputError: if it is not a number from 0 to 232.
    """
    text = environment.get("ROS_DOMAIN_ID", "").strip() or "0"
    if not text.isdecimal() or int(text) > _MAX_DOMAIN:
        raise BadInputError(f"ROS_DOMAIN_ID is {text!r}; expected a number from 0 to {_MAX_DOMAIN}")
    return int(text)


def cyclone_config(environment: Mapping[str, str] = os.environ) -> str:
    """Configuration of Cyclone DDS from the environment variables of ROS 2, as made by its middleware.

    ROS_AUTOMATIC_DISCOVERY_RANGE is SUBNET by default; ROS_LOCALHOST_ONLY=1 means LOCALHOST and overrides it.
    ROS_STATIC_PEERS are host names or addresses, separated by semicolons. CYCLONEDDS_URI takes precedence over all.

    Raises:
        BadInputError: if the range is not one of ROS 2.
    """
    own = environment.get("CYCLONEDDS_URI", "")
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip() or "SUBNET"
    if environment.get("ROS_LOCALHOST_ONLY", "").strip() == "1":
        reach = "LOCALHOST"
    if reach not in _RANGES:
        raise BadInputError(f"ROS_AUTOMATIC_DISCOVERY_RANGE is {reach!r}; expected one of {', '.join(_RANGES)}")
    if reach == "SYSTEM_DEFAULT":
        return own
    general = "" if reach == "SUBNET" else "<General><AllowMulticast>false</AllowMulticast></General>"
    if reach == "OFF":
        found = f"<ParticipantIndex>none</ParticipantIndex><Tag>ros_discovery_off_{os.getpid()}</Tag>"
    else:
        peers = [one.strip() for one in environment.get("ROS_STATIC_PEERS", "").split(";") if one.strip()]
        peers = ["localhost", *peers] if reach == "LOCALHOST" else peers
        listed = "".join(f"<Peer address={quoteattr(peer)}/>" for peer in peers)
        found = (
            "<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>"
            f"{f'<Peers>{listed}</Peers>' if listed else ''}"
        )
    return f"<CycloneDDS><Domain>{general}<Discovery>{found}</Discovery></Domain></CycloneDDS>,{own}"
