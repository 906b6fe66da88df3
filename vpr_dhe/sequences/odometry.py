"""Motion of a camera between frames, as reported by a robot."""

import math
from dataclasses import dataclass

from vpr_dhe.errors import BadInputError


@dataclass(frozen=True)
class Odometry:
    """Motion of the camera from one frame to the next; None for unknown values.

    Args:
        distance_m: length of the displacement; at least 0.
        direction_deg: its direction, clockwise from the viewing direction before the motion: 0 is ahead, 90 to the
            right.
        turn_deg: rotation of the camera, clockwise.

    Raises:
        BadInputError: unless all numbers are finite and the distance is not negative.
    """

    distance_m: float
    direction_deg: float | None = None
    turn_deg: float | None = None

    def __post_init__(self) -> None:
        numbers = [number for number in (self.distance_m, self.direction_deg, self.turn_deg) if number is not None]
        if self.distance_m < 0 or not all(math.isfinite(number) for number in numbers):
            raise BadInputError(f"{self} is invalid; expected finite numbers and a distance of at least 0")

    @classmethod
    def of_displacement(cls, forward_m: float, right_m: float, turn_deg: float | None = None) -> "Odometry":
        """Build from a displacement in the frame of the camera before the motion."""
        direction_deg = math.degrees(math.atan2(right_m, forward_m))
        return cls(math.hypot(forward_m, right_m), direction_deg, turn_deg)

    def then(self, next: "Odometry") -> "Odometry":
        """This motion and the next one combined.

        If directions are unknown, distances add up, as on a straight line.
        """
        turn_deg = None if self.turn_deg is None or next.turn_deg is None else self.turn_deg + next.turn_deg
        if self.direction_deg is None or next.direction_deg is None or self.turn_deg is None:
            return Odometry(self.distance_m + next.distance_m, None, turn_deg)
        first, second = math.radians(self.direction_deg), math.radians(self.turn_deg + next.direction_deg)
        return Odometry.of_displacement(
            self.distance_m * math.cos(first) + next.distance_m * math.cos(second),
            self.distance_m * math.sin(first) + next.distance_m * math.sin(second),
            turn_deg,
        )


@dataclass(frozen=True)
class Step:
    """Interval between two consecutive localized frames: number of source frames, duration and motion.

    If times are known and the interval is longer than usual, `frames` is the number of frames that usually fit in it.
    """

    frames: int = 1
    seconds: float | None = None
    odometry: Odometry | None = None
