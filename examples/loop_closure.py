"""Close the loops of a drive: which frames of a bag show a place that the camera saw before?

    python examples/loop_closure.py day-1.bag --topic /camera/image_raw

Each frame becomes a place of a growing index once it is asked for; those of the last seconds are no candidates. A line
is a constraint for a pose graph: two frames, how likely they show one place, and the homography between them.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from vpr_dhe import Localizer, PlaceIndex, Resources, SequenceLocalizer, build_verifier, load_extractor
from vpr_dhe.recordings.bags import open_bag
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.sequences.frame_memory import FrameMemory, Recent
from vpr_dhe.sequences.loops import loops_among
from vpr_dhe.sequences.motion import RouteMotion
from vpr_dhe.sequences.recorded import recorded_frames


def main() -> None:
    """Print the loops as they are closed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--topic", required=True, help="of the images")
    parser.add_argument("--min-seconds", type=float, default=0.5, help="between two frames [0.5]")
    parser.add_argument("--recent", type=float, default=30.0, help="frames of the last seconds close no loop [30]")
    parser.add_argument("--min-probability", type=float, default=0.5, help="of a loop [0.5]")
    arguments = parser.parse_args()

    extractor = load_extractor("sift-vlad")
    verifier = build_verifier("magsac", Resources(extractor))
    recent = Recent(frames=0, seconds=arguments.recent)
    with TemporaryDirectory() as folder, open_bag(arguments.bag, arguments.topic) as bag:
        index = PlaceIndex.create(f"{folder}/index", extractor.spec, f"{folder}/frames")
        with FrameMemory(index, verifier, recent=recent) as memory:
            sequence = SequenceLocalizer(Localizer(memory, extractor, rerank=20))
            # A robot that comes back may drive the route the other way round.
            tracker = sequence.tracker(sequence.place_map(), RouteMotion(slowest=-2))
            frames = recorded_frames(bag, Selection(min_seconds=arguments.min_seconds))
            localized = sequence.stream(frames, tracker=tracker, top_k=20)
            for loop in loops_among(localized, arguments.min_probability):
                print(f"{loop.query} = {loop.match.image}, p = {loop.probability:.2f}, {loop.match.inliers} inliers")


if __name__ == "__main__":
    main()
