"""DDS on the loopback interface alone."""

import random

URI = """<CycloneDDS><Domain>
  <General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
    <AllowMulticast>false</AllowMulticast></General>
  <Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>20</MaxAutoParticipantIndex>
    <Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""


def environment() -> dict[str, str]:
    """Variables of a domain of its own, whose ports lie below those that the system hands out."""
    return {"CYCLONEDDS_URI": URI, "ROS_DOMAIN_ID": str(random.SystemRandom().randrange(1, 100))}
