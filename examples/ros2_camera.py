"""Simulated camera of a robot: publishes a video over ROS 2, without an installed ROS, and prints the received fixes.

    vpr-dhe ros2 my-map --compressed --image /camera/image_raw/compressed
    python examples/ros2_camera.py walk.mp4

A number instead of the video selects a webcam. Both programs use the environment variables of ROS 2, such as
ROS_DOMAIN_ID.
"""

import argparse
import time
from itertools import count

import cv2

from vpr_dhe.integrations.ros2.cdr import CompressedImage, Stamp
from vpr_dhe.integrations.ros2.graph import cyclone_config, domain_id
from vpr_dhe.integrations.ros2.transport import DdsTransport
from vpr_dhe.records import GeoPosition


def show(fix: GeoPosition) -> None:
    """Print a position."""
    print(f"{fix.latitude_deg:.6f}, {fix.longitude_deg:.6f}", flush=True)


def main() -> None:
    """Publish the video in a loop for some time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="a video, or the number of a webcam")
    parser.add_argument("--rate", type=float, default=5.0, help="frames a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="time after which it ends")
    arguments = parser.parse_args()
    transport = DdsTransport(domain_id(), cyclone_config())
    camera = transport.publisher(CompressedImage, "/camera/image_raw/compressed")
    transport.subscribe_fixes("/vpr_dhe/fix", show)
    transport.start()
    source = int(arguments.video) if arguments.video.isdecimal() else arguments.video
    video, end_s = cv2.VideoCapture(source), time.monotonic() + arguments.seconds
    for number in count():
        if time.monotonic() > end_s:
            break
        grabbed, image = video.read()
        if not grabbed and number == 0:
            raise SystemExit(f"{arguments.video} cannot be read")
        if not grabbed:
            video = cv2.VideoCapture(source)  # from the beginning
            continue
        content = memoryview(cv2.imencode(".jpg", image)[1].tobytes())
        stamp = Stamp(*divmod(time.time_ns(), 10**9))
        camera.publish(CompressedImage(stamp, "camera", "jpeg", content))
        time.sleep(1 / arguments.rate)
    transport.close()


if __name__ == "__main__":
    main()
