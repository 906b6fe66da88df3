"""Neighbour search by radius."""

import numpy as np
from jaxtyping import Float64, Int64


def rows_within(
    points: Float64[np.ndarray, "points axes"], centres: Float64[np.ndarray, "centres axes"], radius: float
) -> tuple[Int64[np.ndarray, " _found"], ...]:
    """Find the sorted rows of the points at most `radius` away from each centre, the radius included."""
    from sklearn.neighbors import NearestNeighbors

    # A tree even for small sets: brute force expands squares, and loses precision for large coordinates.
    neighbours = NearestNeighbors(radius=radius, algorithm="kd_tree").fit(points)
    found = neighbours.radius_neighbors(centres, return_distance=False)
    return tuple(np.sort(rows.astype(np.int64)) for rows in found)
