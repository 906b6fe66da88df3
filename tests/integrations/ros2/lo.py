"""DDS on the loopback interface alone."""

import random
import uuid


def environment() -> dict[str, str]:
    """Variables of a domain of its own, whose ports lie below those that the system hands out.

    Participants of other tags are strangers, also those of another test run that chose the same domain.
    """
    uri = f"""<CycloneDDS><Domain>
      <General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
        <AllowMulticast>false</AllowMulticast></General>
      <Discovery><Tag>{uuid.uuid4()}</Tag>
        <ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>20</MaxAutoParticipantIndex>
        <Peers><Peer address="127.0.0.1"/></Peers></Discovery>
    </Domain></CycloneDDS>"""
    return {"CYCLONEDDS_URI": uri, "ROS_DOMAIN_ID": str(random.SystemRandom().randrange(1, 100))}
