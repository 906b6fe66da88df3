"""Latency, rate, drops and memory of the ROS 2 node, over DDS on the loopback interface.

    python benchmarks/ros2.py INDEX PHOTOS --seconds 300 --rate 30 --out ros2.json

A process of its own plays the photos of a folder as `sensor_msgs/Image` at a constant rate, stamped by the clock of
this machine. The latency is the time from that stamp to the arrival of the answer in a third process.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cyclonedds._clayer import ddspy_write
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from measuring import write_result

from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.listing import list_images
from vpr_dhe.integrations.ros2 import idl
from vpr_dhe.integrations.ros2.cdr import RawImage, Stamp, write_image
from vpr_dhe.integrations.ros2.graph import dds_topic

DOMAIN = 77
URI = (
    '<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>'
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<MaxAutoParticipantIndex>20</MaxAutoParticipantIndex><Peers><Peer address="127.0.0.1"/></Peers></Discovery>'
    "</Domain></CycloneDDS>"
)
IMAGES, ANSWERS, STATUS = "/camera/image_raw", "/vpr_dhe/answer", "/diagnostics"
SENSOR = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(1))
RELIABLE = Qos(Policy.Reliability.Reliable(10**8), Policy.History.KeepLast(100))


@dataclass(frozen=True)
class Result:
    """Figures of one run; memory is that of the node after each tenth of the run."""

    seconds: float
    images_per_second: float
    width: int
    height: int
    answers: int
    answers_per_second: float
    latency_ms_median: float
    latency_ms_95: float
    dropped: int
    memory_mb: list[float]


def play(photos: Path, rate: float) -> None:
    """Publish the photos again and again, until the process is ended."""
    pixels = [decode_image(photos / name) for name in list_images(photos)]
    domain, participant = joined()
    writer = DataWriter(participant, Topic(participant, dds_topic(IMAGES), idl.Image), qos=SENSOR)
    started_s, number = time.monotonic(), 0
    while domain:
        image = pixels[number % len(pixels)]
        height, width = image.shape[:2]
        stamp = Stamp(*divmod(time.time_ns(), 10**9))
        data = memoryview(np.ascontiguousarray(image).reshape(-1))
        ddspy_write(writer._ref, write_image(RawImage(stamp, "eye", height, width, "rgb8", 0, 3 * width, data)))
        number += 1
        time.sleep(max(0.0, started_s + number / rate - time.monotonic()))


def joined() -> tuple[Domain, DomainParticipant]:
    """Join the domain."""
    return Domain(DOMAIN, URI), DomainParticipant(DOMAIN)


def measure(index: Path, photos: Path, rate: float, seconds: float, options: list[str]) -> Result:
    """Run node and camera, and listen."""
    domain, participant = joined()
    answers = DataReader(participant, Topic(participant, dds_topic(ANSWERS), idl.String), qos=RELIABLE)
    statuses = DataReader(participant, Topic(participant, dds_topic(STATUS), idl.DiagnosticArray), qos=RELIABLE)
    me = [sys.executable, __file__, str(index), str(photos), "--rate", str(rate), "--play"]
    latencies_ms: list[float] = []
    memory_mb: list[float] = []
    facts: dict[str, int] = {}
    with ExitStack() as stack:
        node = stack.enter_context(started([sys.executable, "-m", "vpr_dhe", "ros2", str(index), *options]))
        stack.enter_context(started(me))
        while not answers.take(100):
            time.sleep(0.01)
        begun_s = time.monotonic()
        while (passed_s := time.monotonic() - begun_s) < seconds:
            now_s = time.time()
            latencies_ms += [1e3 * (now_s - json.loads(answer.data)["timestamp_s"]) for answer in answers.take(100)]
            for status in statuses.take(100):
                facts = {value.key: value.value for value in status.status[0].values}
            if passed_s > seconds * (len(memory_mb) + 1) / 11:
                memory_mb.append(resident_mb(node.pid))
            time.sleep(0.002)
    assert domain
    height, width = decode_image(photos / list_images(photos)[0]).shape[:2]
    return Result(
        seconds,
        rate,
        width,
        height,
        len(latencies_ms),
        round(len(latencies_ms) / seconds, 2),
        *np.percentile(latencies_ms, [50, 95]).round(1).tolist(),
        int(facts["images dropped"]),
        memory_mb,
    )


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen]:
    """A process in the domain, which ends with the block."""
    environment = os.environ | {"CYCLONEDDS_URI": URI, "ROS_DOMAIN_ID": str(DOMAIN)}
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--play", action="store_true", help="be the camera")
    parser.add_argument("--rerank", default="100")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    if chosen.play:
        play(chosen.photos, chosen.rate)
        return
    result = measure(chosen.index, chosen.photos, chosen.rate, chosen.seconds, ["--rerank", chosen.rerank])
    print(json.dumps(asdict(result), indent=2))
    write_result(chosen.out, "ros2", {"rerank": int(chosen.rerank), **asdict(result)})


if __name__ == "__main__":
    main()
