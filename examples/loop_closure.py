"""Find loop closures: frames of a bag that show a place seen before.

    python examples/loop_closure.py day-1.bag --topic /camera/image_raw

Each frame is first a query, then added to a growing index; the frames of the last seconds are not candidates. Each line
of output is a constraint for a pose graph: two frames and the probability that they show the same place.
"""

import argparse
from pathlib import Path

import numpy as np

from vpr_dhe import find_loops
from vpr_dhe.recordings.bags import open_bag
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.sequences.recording_stream import recorded_frames


def main() -> None:
    """Print loop closures as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--topic", required=True, help="of the images")
    parser.add_argument("--min-seconds", type=float, default=0.5, help="between two frames [0.5]")
    parser.add_argument("--recent", type=float, default=30.0, help="frames of the last seconds close no loop [30]")
    parser.add_argument("--min-probability", type=float, default=0.5, help="of a loop [0.5]")
    arguments = parser.parse_args()

    with open_bag(arguments.bag, arguments.topic) as bag:
        frames = recorded_frames(bag, Selection(min_seconds=arguments.min_seconds))
        for loop in find_loops(
            frames, ignore_seconds=arguments.recent, ignore_frames=0, min_probability=arguments.min_probability
        ):
            print(f"{loop.query} = {loop.match.image}, p = {loop.probability:.2f}, {loop.match.inliers} inliers")
            print(f"    {np.round(loop.match.homography, 4).tolist()}")


if __name__ == "__main__":
    main()
