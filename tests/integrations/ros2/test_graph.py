"""Names of topics, and the variables that choose the domain and whom it reaches."""

from xml.etree import ElementTree

import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.integrations.ros2.graph import Names, Topics, cyclone_config, dds_topic, domain_id


def test_relative_names_are_in_the_namespace_and_remapped():
    names = Names.parse("robot1/", ["vpr_dhe/fix:=/gps/visual", "/diagnostics:=status"])
    assert names.resolve("/camera/image_raw") == "/camera/image_raw"
    assert names.resolve("vpr_dhe/answer") == "/robot1/vpr_dhe/answer"
    assert names.resolve("vpr_dhe/fix") == names.resolve("/robot1/vpr_dhe/fix") == "/gps/visual"
    assert names.resolve("/diagnostics") == "/robot1/status"
    assert Names.parse("/").resolve("vpr_dhe/fix") == "/vpr_dhe/fix"
    topics = Topics.resolve(names, "camera", compressed=True, prior="/diagnostics", odometry=None)
    assert topics == Topics(names, "/robot1/camera", True, "/robot1/status", None)
    assert dds_topic("/vpr_dhe/fix") == "rt/vpr_dhe/fix"


@pytest.mark.parametrize("name", ["", "/", "a b", "2nd", "a//b", "a/", "é"])
def test_other_names_are_refused(name):
    with pytest.raises(BadInputError, match="is not a topic name"):
        Names().resolve(name)


def test_mistakes_are_said():
    with pytest.raises(BadInputError, match="FROM:=TO"):
        Names.parse("/", ["a=b"])
    for number in ("-1", "233", "one"):
        with pytest.raises(BadInputError, match="from 0 to 232"):
            domain_id({"ROS_DOMAIN_ID": number})
    with pytest.raises(BadInputError, match="expected one of SUBNET"):
        cyclone_config({"ROS_AUTOMATIC_DISCOVERY_RANGE": "ALL"})


def test_the_domain_is_that_of_the_environment():
    assert (domain_id({}), domain_id({"ROS_DOMAIN_ID": " 42 "})) == (0, 42)


def domain(**environment: str) -> ElementTree.Element:
    made, _, own = cyclone_config(environment).partition(",")
    assert own == environment.get("CYCLONEDDS_URI", "")
    return ElementTree.fromstring(made)[0]


def peers(found: ElementTree.Element) -> list[str]:
    return [peer.attrib["address"] for peer in found.iter("Peer")]


def test_discovery_reaches_as_far_as_the_environment_says():
    subnet = domain(ROS_STATIC_PEERS="10.0.0.2; robot&co", CYCLONEDDS_URI="<a/>")
    assert (subnet.find("General"), peers(subnet)) == (None, ["10.0.0.2", "robot&co"])
    local = domain(ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", ROS_STATIC_PEERS="10.0.0.2")
    assert (local.findtext("General/AllowMulticast"), peers(local)) == ("false", ["localhost", "10.0.0.2"])
    assert peers(domain(ROS_LOCALHOST_ONLY="1")) == ["localhost"]
    assert peers(domain(ROS_LOCALHOST_ONLY="0")) == []
    off = domain(ROS_AUTOMATIC_DISCOVERY_RANGE="OFF", ROS_STATIC_PEERS="10.0.0.2")
    assert (off.findtext("Discovery/ParticipantIndex"), peers(off)) == ("none", [])
    assert cyclone_config({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT", "CYCLONEDDS_URI": "<a/>"}) == "<a/>"
