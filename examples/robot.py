"""Localize a robot: track a camera with odometry over the places of an index.

    python examples/robot.py my-index walk.mp4 --max-speed 2

The camera is simulated by a video. Replace `camera` by your own generator of frames with times and, if known, the
distance moved since the previous frame. While a frame is processed, only the latest frame is kept.
"""

import argparse
from collections.abc import Iterator

import cv2

from vpr_dhe import Localizer, SequenceFrame, SequenceLocalizer
from vpr_dhe.sequences.frames import DropPolicy
from vpr_dhe.sequences.motion import PositionMotion
from vpr_dhe.sequences.odometry import Odometry


def camera(path: str, moved_m: float | None) -> Iterator[SequenceFrame]:
    """Yield RGB frames of a video with their times."""
    video = cv2.VideoCapture(path)
    while True:
        now_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        read, image = video.read()
        if not read:
            return
        odometry = None if moved_m is None else Odometry(moved_m)
        yield SequenceFrame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), now_s, odometry)


def main() -> None:
    """Print the place of the camera for each frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", help="made by `vpr-dhe index`; its images have positions")
    parser.add_argument("video")
    parser.add_argument("--max-speed", type=float, default=2.0, help="of the camera, in metres per second [2]")
    parser.add_argument("--moved", type=float, help="metres between two frames, where known")
    parser.add_argument("--all-frames", action="store_true", help="wait for each frame, as for a recording")
    arguments = parser.parse_args()

    sequence = SequenceLocalizer(Localizer.open(arguments.index, rerank=20))
    places = sequence.place_map()
    tracker = sequence.tracker(places, PositionMotion(places, max_speed_m_s=arguments.max_speed))
    drop = DropPolicy.none if arguments.all_frames else DropPolicy.latest
    for frame in sequence.stream(camera(arguments.video, arguments.moved), tracker=tracker, drop=drop):
        best = frame.belief.best if frame.belief else None
        where = f"{best.image}, p = {best.probability:.2f}, {best.position}" if best else "unknown"
        print(f"frame {frame.number} at {frame.timestamp_s:.1f} s ({frame.dropped} dropped): {where}")


if __name__ == "__main__":
    main()
