"""Motion models: how a belief spreads over places between two frames."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.sequences.odometry import Odometry, Step
from vpr_dhe.sequences.place_map import PlaceMap

# Truncates a normal distribution; 0.3 % of it lies farther out.
_REACH_DEVIATIONS = 3.0


class Mass(NamedTuple):
    """Probability at some places; the places of a belief are distinct and ascending."""

    places: Int64[np.ndarray, " support"]
    mass: Float64[np.ndarray, " support"]


@runtime_checkable
class MotionModel(Protocol):
    """Transition model of a camera between places."""

    def spread(self, belief: Mass, step: Step, count: int) -> Mass:
        """Move probability on to places below `count`; its total stays the same.

        The cost grows with the places that have mass and their reach, not with the size of the map.
        """
        ...

    def around(self, place: int) -> Int64[np.ndarray, " _places"]:
        """Places that count as the same as this one, itself included."""
        ...


class RouteMotion:
    """Forward motion along the order of the places, a route with two ends.

    A frame advances by a whole number of places from `slowest` to `fastest`, all equally likely, blurred by a normal
    distribution. For several frames the bounds and the variance multiply. If odometry gives a distance and `spacing_m`
    is known, the advance is their quotient.

    Args:
        slowest: minimum advance per frame, in places.
        fastest: maximum advance per frame, in places.
        diffusion: standard deviation of the blur per frame, in places; at least 0.
        spacing_m: distance between consecutive places of the route, in metres; positive.
        same_place: number of places to either side that count as the same.

    Raises:
        BadInputError: if a bound is out of range.

    Source: Milford and Wyeth, "SeqSLAM", ICRA 2012, searches the same band of speeds; here it is a transition
    probability, as in Angeli et al., IEEE T-RO 2008.
    """

    def __init__(
        self,
        *,
        slowest: int = 0,
        fastest: int = 2,
        diffusion: float = 0.5,
        spacing_m: float | None = None,
        same_place: int = 2,
    ) -> None:
        if slowest > fastest or diffusion < 0 or (spacing_m is not None and spacing_m <= 0):
            raise BadInputError(
                f"motion from {slowest} to {fastest} places has a diffusion of {diffusion} and a spacing of "
                f"{spacing_m} m; expected slowest <= fastest, a diffusion of at least 0 and a positive spacing"
            )
        self._slowest, self._fastest, self._diffusion, self._spacing_m = slowest, fastest, diffusion, spacing_m
        self._same_place = same_place

    def around(self, place: int) -> Int64[np.ndarray, " _places"]:
        """The places just before and after."""
        return np.arange(place - self._same_place, place + self._same_place + 1)

    def spread(self, belief: Mass, step: Step, count: int) -> Mass:
        """Move mass along the route; at its ends, mass that would leave is shared among the remaining targets."""
        advances, weights = self._advances(step)
        targets = belief.places[:, None] + advances
        shares = np.where((targets >= 0) & (targets < count), weights, 0.0)
        return _moved(belief, targets.ravel(), shares)

    def _advances(self, step: Step) -> tuple[Int64[np.ndarray, " advances"], Float64[np.ndarray, " advances"]]:
        """Possible advances in places, and their unnormalised probabilities."""
        if self._spacing_m is not None and step.odometry is not None:
            centres = np.array([step.odometry.distance_m / self._spacing_m])
        else:
            centres = np.arange(step.frames * self._slowest, step.frames * self._fastest + 1, dtype=np.float64)
        deviation = self._diffusion * step.frames**0.5
        reach = _REACH_DEVIATIONS * deviation
        advances = np.arange(int(np.floor(centres[0] - reach)), int(np.ceil(centres[-1] + reach)) + 1)
        # Without diffusion the place nearest to the advance gets nearly all the mass.
        weights = np.exp(-0.5 * ((advances[:, None] - centres) / max(deviation, 0.25)) ** 2).sum(axis=1)
        return advances, weights


class PositionMotion:
    """Motion in the plane, between the positions of the images.

    Without odometry, a step leads anywhere within `max_speed_m_s` times its duration, or within `max_step_m` per frame
    if times are unknown. With odometry, it has that length and, if the image's heading and the direction of motion are
    known, that direction; the turn must agree with the difference of the headings. Because images lie at discrete
    positions, step and turn are blurred.

    Args:
        places: with at least one position.
        max_step_m: maximum distance per frame, in metres.
        max_speed_m_s: maximum speed, in metres per second.
        deviation_m: standard deviation of a step's end; by default half the median distance to the nearest other
            position.
        heading_deviation_deg: standard deviation of a turn.
        same_place_m: distance within which places count as the same.

    Raises:
        BadInputError: if no image has a position, positions cannot be compared, or there is no positive bound.
    """

    def __init__(
        self,
        places: PlaceMap,
        *,
        max_step_m: float | None = None,
        max_speed_m_s: float | None = None,
        deviation_m: float | None = None,
        heading_deviation_deg: float = 45.0,
        same_place_m: float = RADIUS_M,
    ) -> None:
        from sklearn.neighbors import KDTree

        bounds = [bound for bound in (max_step_m, max_speed_m_s) if bound is not None]
        if not bounds or min(bounds) <= 0:
            raise BadInputError(
                f"motion by position needs a bound, found max_step_m={max_step_m}, max_speed_m_s={max_speed_m_s}; give "
                "a positive one"
            )
        self._max_step_m, self._max_speed_m_s = max_step_m, max_speed_m_s
        self._positions, self._headings_deg = places.positions_m(), places.headings_deg
        self._known = np.flatnonzero(~np.isnan(self._positions[:, 0]))
        self._tree = KDTree(self._positions[self._known])
        self._deviation_m = _half_spacing(self._positions[self._known]) if deviation_m is None else deviation_m
        self._heading_deviation_deg, self._same_place_m = heading_deviation_deg, same_place_m

    def around(self, place: int) -> Int64[np.ndarray, " _places"]:
        """Images taken near this one."""
        if np.isnan(self._positions[place, 0]):
            return np.array([place])
        (near,) = self._tree.query_radius(self._positions[[place]], self._same_place_m)
        return self._known[near]

    def spread(self, belief: Mass, step: Step, count: int) -> Mass:
        """Move mass to images within reach; mass at images without a position stays."""
        if count != len(self._positions):
            raise BadInputError(
                f"motion by positions was made for {len(self._positions)} places, but there are {count}; if frames "
                "become places, use RouteMotion"
            )
        located = ~np.isnan(self._positions[belief.places, 0])
        moving = Mass(belief.places[located], belief.mass[located])
        if not len(moving.places):  # the tree takes no empty set of positions
            return belief
        found = self._tree.query_radius(self._positions[moving.places], self._reach_m(step))
        lengths = np.array([len(near) for near in found], np.int64)
        sources = np.repeat(np.arange(len(lengths)), lengths)
        targets = self._known[np.concatenate([*found, np.empty(0, np.int64)])]
        weights = self._weights(moving.places[sources], targets, step)
        totals = np.bincount(sources, weights, minlength=len(lengths))
        # If the odometry leads to no image, the mass stays.
        lost = totals == 0
        mass = moving.mass[sources] * weights / np.where(lost, 1.0, totals)[sources]
        return sum_by_place(
            [
                Mass(targets, mass),
                Mass(moving.places[lost], moving.mass[lost]),
                Mass(belief.places[~located], belief.mass[~located]),
            ]
        )

    def _bound_m(self, step: Step) -> float:
        if self._max_speed_m_s is not None and step.seconds is not None:
            return max(self._max_speed_m_s * step.seconds, 0.0)
        if self._max_step_m is None:
            raise BadInputError("a frame has no time, so max_speed_m_s sets no bound; give times, or max_step_m")
        return self._max_step_m * step.frames

    def _reach_m(self, step: Step) -> float:
        return _REACH_DEVIATIONS * self._deviation_m + (
            self._bound_m(step) if step.odometry is None else step.odometry.distance_m
        )

    def _weights(
        self, sources: Int64[np.ndarray, " steps"], targets: Int64[np.ndarray, " steps"], step: Step
    ) -> Float64[np.ndarray, " steps"]:
        """Likelihood of each step from image to image, up to a factor."""
        moved = self._positions[targets] - self._positions[sources]
        if step.odometry is None:
            beyond = np.maximum(np.linalg.norm(moved, axis=1) - self._bound_m(step), 0.0)
            return _normal(beyond / self._deviation_m)
        headings, turned = self._headings_deg[sources], self._headings_deg[targets] - self._headings_deg[sources]
        weights = _normal(_misses_m(moved, headings, step.odometry) / self._deviation_m)
        if step.odometry.turn_deg is not None:
            missed_deg = (turned - step.odometry.turn_deg + 180) % 360 - 180
            weights *= _normal(np.nan_to_num(missed_deg, nan=0.0) / self._heading_deviation_deg)
        return weights


def _misses_m(
    moved: Float64[np.ndarray, "steps 2"], headings_deg: Float64[np.ndarray, " steps"], odometry: Odometry
) -> Float64[np.ndarray, " steps"]:
    """Distance between the end of each step and that of the odometry; in length alone if the direction is unknown."""
    misses = np.abs(np.linalg.norm(moved, axis=1) - odometry.distance_m)
    if odometry.direction_deg is None:
        return misses
    course = np.radians(headings_deg + odometry.direction_deg)
    led = odometry.distance_m * np.stack([np.sin(course), np.cos(course)], axis=1)
    return np.where(np.isnan(headings_deg), misses, np.linalg.norm(moved - led, axis=1))


def _normal(deviations: Float64[np.ndarray, " steps"]) -> Float64[np.ndarray, " steps"]:
    return np.exp(-0.5 * deviations**2)


def _half_spacing(positions: Float64[np.ndarray, "places 2"]) -> float:
    """Half the median distance from a position to the nearest other; 1 m for a single position."""
    from sklearn.neighbors import KDTree

    spots = np.unique(positions, axis=0)
    if len(spots) < 2:
        return 1.0
    distances, _ = KDTree(spots).query(spots, k=2)
    return float(np.median(distances[:, 1])) / 2


def _moved(belief: Mass, targets: Int64[np.ndarray, " moves"], shares: Float64[np.ndarray, "support advances"]) -> Mass:
    """Distribute the mass of each place among its targets; it stays if there are none."""
    totals = shares.sum(axis=1)
    stays = totals == 0
    mass = (belief.mass / np.where(stays, 1.0, totals))[:, None] * shares
    reached = shares.ravel() > 0
    return sum_by_place([Mass(targets[reached], mass.ravel()[reached]), Mass(belief.places[stays], belief.mass[stays])])


def sum_by_place(parts: Sequence[Mass]) -> Mass:
    """Sum the mass per place; places of the parts may be unordered and repeated."""
    distinct, owners = np.unique(np.concatenate([part.places for part in parts]), return_inverse=True)
    return Mass(distinct, np.bincount(owners, np.concatenate([part.mass for part in parts]), minlength=len(distinct)))
