"""False loops on a drive of ten minutes with bad stamps and covered frames.

    python benchmarks/loop_drive.py --out loop_drive.json

A camera drives the six streets of a synthetic town at two frames a second, and after six minutes begins again in
another light. One stamp in a hundred is wrong (0, an hour ahead, or a second back), and one frame in twenty shows a
dark room or a white wall. A loop is false if one of its frames is blank, or if they were taken more than 25 metres
apart.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from measuring import write_result

from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.records import Image
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.loops import Loop, find_loops
from vpr_dhe.synthetic_town.camera import Camera
from vpr_dhe.synthetic_town.town import NEUTRAL, Appearance, SyntheticTown
from vpr_dhe.verification.names import DEFAULT_VERIFIER

STEP_S = 0.5
RADIUS_M = 25.0
START_S = 1.7e9
BAD_STAMPS, BLANK_FRAMES = 0.01, 0.05
MIN_PROBABILITIES = (0.5, 0.9, 0.99)
_STREETS = 6
_LAP_SHARE = 0.6
_MARGIN_M = 10.0


@dataclass(frozen=True)
class Drive:
    """Cameras of a traverse, the covered frames, and times with some errors."""

    town: SyntheticTown
    cameras: tuple[Camera, ...]
    lap: int
    light: Appearance
    blank: frozenset[int]
    times_s: Float64[np.ndarray, " frames"]

    @classmethod
    def of(cls, frames: int, seed: int = 0) -> "Drive":
        """Make a traverse of `frames` frames; the last two fifths follow the first streets again."""
        town, random = SyntheticTown(seed=3, streets=_STREETS), np.random.default_rng(seed)
        lap = round(_LAP_SHARE * frames)
        first = list(_along(town, lap))
        again = [replace(one, x_m=one.x_m + 0.4, y_m=one.y_m + 0.5) for one in first[: frames - lap]]
        blank = random.choice(frames, round(BLANK_FRAMES * frames), replace=False).tolist()
        return cls(
            town, (*first, *again), lap, Appearance.sample(random), frozenset(blank), _with_bad_stamps(frames, random)
        )

    def frames(self) -> Iterator[SequenceFrame]:
        """Yield frames, rendered on demand."""
        for number, time_s in enumerate(self.times_s.tolist()):
            yield SequenceFrame(partial(self._pixels, number), time_s, name=f"{number:05d}.jpg")

    def _pixels(self, number: int) -> Image:
        if number in self.blank:
            level = 5 if number % 2 else 235
            noise = np.random.default_rng(number).normal(level, 2, (240, 320, 3))
            return np.clip(noise, 0, 255).astype(np.uint8)
        return self.town.render(self.cameras[number], NEUTRAL if number < self.lap else self.light)

    def is_false(self, loop: Loop) -> bool:
        """Whether a loop connects a blank frame to another, or two different places."""
        one, other = (int(Path(name).stem) for name in (loop.query, loop.match.image))
        a, b = self.cameras[one], self.cameras[other]
        return bool(self.blank & {one, other}) or math.hypot(a.x_m - b.x_m, a.y_m - b.y_m) > RADIUS_M


@dataclass(frozen=True)
class Outcome:
    """Number of loops of a traverse with at least a probability, and of false ones among them."""

    min_probability: float
    loops: int
    false: int


def measure(drive: Drive, model: str = DEFAULT_MODEL, verifier: str = DEFAULT_VERIFIER) -> list[Outcome]:
    """Find the loops of a drive and count them."""
    loops = list(find_loops(drive.frames(), model=model, verifier=verifier, min_probability=min(MIN_PROBABILITIES)))
    outcomes = []
    for least in MIN_PROBABILITIES:
        sure = [loop for loop in loops if loop.probability >= least]
        outcomes.append(Outcome(least, len(sure), sum(map(drive.is_false, sure))))
    return outcomes


def _along(town: SyntheticTown, count: int) -> Iterator[Camera]:
    """Cameras evenly spaced along a traverse of all streets, looking half to the side."""
    for place in np.linspace(0, len(town.streets), count, endpoint=False):
        street, share = town.streets[int(place)], place % 1
        first_m, last_m = street.start_m + _MARGIN_M, street.end_m - _MARGIN_M
        x_m, y_m = street.point(first_m + share * (last_m - first_m), 0.0)
        yield Camera(x_m, y_m, 1.8, (street.heading_deg + 60) % 360, 5.0)


def _with_bad_stamps(frames: int, random: np.random.Generator) -> Float64[np.ndarray, " frames"]:
    times_s = START_S + STEP_S * np.arange(frames)
    bad = random.choice(frames, round(BAD_STAMPS * frames), replace=False)
    for number, place in enumerate(bad.tolist()):
        times_s[place] = (0.0, times_s[place] + 3600, times_s[place] - 1)[number % 3]
    return times_s


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--verifier", default=DEFAULT_VERIFIER)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    drive = Drive.of(round(60 * arguments.minutes / STEP_S))
    outcomes = measure(drive, arguments.model, arguments.verifier)
    for one in outcomes:
        print(f"p at least {one.min_probability}: {one.loops} loops, {one.false} false")
    if arguments.out:
        facts = {"minutes": arguments.minutes, "model": arguments.model, "verifier": arguments.verifier}
        counts = {"frames": len(drive.cameras), "blank": len(drive.blank), "radius_m": RADIUS_M}
        write_result(arguments.out, "loop_drive", facts | counts | {"loops": [asdict(one) for one in outcomes]})


if __name__ == "__main__":
    main()
