"""What a robot knows of its own motion between two frames."""

import math
from dataclasses import dataclass

from vpr_dhe.errors import BadInputError


@dataclass(frozen=True)
class Odometry:
    """Motion of the camera from one frame to the next.

    `distance_m` is how far it moved. `direction_deg` is where to, clockwise from where the camera looked before the
    motion: 0 is ahead, 90 to the right. `turn_deg` is how far it turned meanwhile, clockwise. None where unknown.

    Raises:
        BadInputError: unless all numbers are finite and the distance is not negative.
    """

    distance_m: float
    direction_deg: float | None = None
    turn_deg: float | None = None

    def __post_init__(self) -> None:
        numbers = [number for number in (self.distance_m, self.direction_deg, self.turn_deg) if number is not None]
        if self.distance_m < 0 or not all(math.isfinite(number) for number in numbers):
            raise BadInputError(f"{self} is no motion; expected finite numbers and a distance from 0")

    @classmethod
    def of_displacement(cls, forward_m: float, right_m: float, turn_deg: float | None = None) -> "Odometry":
        """From a displacement in the frame of the camera before the motion."""
        direction_deg = math.degrees(math.atan2(right_m, forward_m))
        return cls(math.hypot(forward_m, right_m), direction_deg, turn_deg)

    def then(self, next: "Odometry") -> "Odometry":
        """This motion and the next as one: what a frame that was dropped had moved is not forgotten.

        Where directions are unknown, distances add up, as on a straight way.
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
    """What lies between two frames that were looked at: seconds and motion, where known, and `frames` of the source.

    Where time is known and more of it passed than usual, `frames` are as many as it usually takes that long for.
    """

    frames: int = 1
    seconds: float | None = None
    odometry: Odometry | None = None
