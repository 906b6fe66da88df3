"""Which points lie near which others."""

import numpy as np
from jaxtyping import Float64, Int64


def rows_within(
    points: Float64[np.ndarray, "points axes"], centres: Float64[np.ndarray, "centres axes"], radius: float
) -> tuple[Int64[np.ndarray, " _found"], ...]:
    """For each centre the sorted rows of the points at most `radius` away, the radius itself included."""
    from sklearn.neighbors import NearestNeighbors

    # Brute force, which small sets would get, expands squares and loses the digits that large coordinates need.
    neighbours = NearestNeighbors(radius=radius, algorithm="kd_tree").fit(points)
    found = neighbours.radius_neighbors(centres, return_distance=False)
    return tuple(np.sort(rows.astype(np.int64)) for rows in found)
