"""Camera of a robot: publishes the images of a file again and again, until its standard input ends.

python player.py IMAGES.npz TOPIC raw|compressed SECONDS [ODOMETRY_TOPIC]

Images are stamped a second apart, and the nanoseconds are the number of the image. The odometry is that of the rows of
`poses` in the file, x, y and yaw, or a metre ahead per image.
"""

import math
import select
import sys
from itertools import count

import cv2
import numpy as np
from cyclonedds._clayer import ddspy_write
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.topic import Topic

from vpr_dhe.integrations.ros2 import idl
from vpr_dhe.integrations.ros2.cdr import CompressedImage, RawImage, Stamp, write_compressed, write_image
from vpr_dhe.integrations.ros2.graph import cyclone_config, dds_topic, domain_id

SENSOR = Qos(
    Policy.Reliability.BestEffort,
    Policy.History.KeepLast(5),
    Policy.DataRepresentation(use_cdrv0_representation=True),
)


def serialised(pixels: np.ndarray, stamp: Stamp, kind: str) -> bytes:
    if kind == "compressed":
        content = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        return write_compressed(CompressedImage(stamp, "camera", "png", memoryview(content)))
    height, width = pixels.shape[:2]
    return write_image(RawImage(stamp, "camera", height, width, "rgb8", 0, 3 * width, memoryview(pixels.tobytes())))


def main(path: str, topic: str, kind: str, period_s: float, odometry: str | None = None) -> None:
    archive = np.load(path)
    images = [archive[name] for name in archive.files if name != "poses"]
    poses = archive.get("poses")
    domain = Domain(domain_id(), cyclone_config())
    participant = DomainParticipant(domain_id())
    form = idl.CompressedImage if kind == "compressed" else idl.Image
    writer = DataWriter(participant, Topic(participant, dds_topic(topic), form), qos=SENSOR)
    moved = odometry and DataWriter(
        participant, Topic(participant, dds_topic(odometry), idl.Odometry), qos=Qos(Policy.Reliability.BestEffort)
    )
    for number in count():
        stamp = Stamp(1_700_000_000 + number, number % len(images))
        if moved:
            x, y, yaw = (number, 0, 0) if poses is None else poses[number % len(poses)].tolist()
            turn = idl.Quaternion(0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
            pose = idl.PoseWithCovariance(idl.Pose(idl.Point(float(x), float(y), 0.0), turn), [0.0] * 36)
            twist = idl.TwistWithCovariance(idl.Twist(), [0.0] * 36)
            moved.write(idl.Odometry(idl.Header(idl.Time(stamp.sec, 0), "odom"), "base_link", pose, twist))
        ddspy_write(writer._ref, serialised(images[number % len(images)], stamp, kind))
        if select.select([sys.stdin], [], [], period_s)[0]:
            break
    del domain


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), *sys.argv[5:])
