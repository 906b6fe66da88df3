"""Loops as a pose graph: parsed by the format's definition, and optimised."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import least_squares

from vpr_dhe.records import RECONSTRUCTION, GeoPosition, ImageRecord, MetricPosition, RankedMatch
from vpr_dhe.report.tables.loops import g2o_format
from vpr_dhe.sequences.loops import Loop


def loop(query: str, image: str) -> Loop:
    return Loop(query, None, RankedMatch(1, image, 0.5, 12.0, None, None), None, 0.9)


def record(name: str, x_m: float, y_m: float, heading_deg: float | None = 90.0, reference="local") -> ImageRecord:
    return ImageRecord(name, MetricPosition(float(x_m), float(y_m), reference), heading_deg)


def graph(text: str) -> tuple[dict[int, np.ndarray], list[tuple[int, int, np.ndarray, np.ndarray]]]:
    """Poses (x, y, yaw) by id, and edges with their measurement and 3 x 3 information."""
    vertices, edges = {}, []
    for line in text.splitlines():
        tag, *values = line.split()
        if tag == "VERTEX_SE2":
            vertices[int(values[0])] = np.array(values[1:], float)
        elif tag == "EDGE_SE2":
            upper = np.zeros((3, 3))
            upper[np.triu_indices(3)] = np.array(values[5:], float)
            information = upper + np.triu(upper, 1).T
            edges.append((int(values[0]), int(values[1]), np.array(values[2:5], float), information))
        else:
            assert tag.startswith("#")
    return vertices, edges


def error(first: np.ndarray, second: np.ndarray, measured: np.ndarray) -> np.ndarray:
    cos, sin = math.cos(first[2]), math.sin(first[2])
    moved = np.array([[cos, sin], [-sin, cos]]) @ (second[:2] - first[:2])
    return np.array([*moved, second[2] - first[2]]) - measured


def test_vertices_are_frames_and_edges_are_loops():
    form = g2o_format([record("a", 1, 2), record("b", 3, 4, 0.0), record("c", 5, 6, None), record("d", 1, 2.5)])
    vertices, [(first, second, measured, information)] = graph(f"{form.header}\n{form.line(loop('d', 'a'))}")
    assert vertices.keys() == {0, 1, 3}
    np.testing.assert_allclose(vertices[0], [1, 2, 0])
    np.testing.assert_allclose(vertices[1], [3, 4, math.pi / 2], atol=1e-6)
    assert (first, second, measured.tolist()) == (0, 3, [0, 0, 0])
    covariance = np.linalg.inv(information)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [12.5, 12.5, math.radians(15)], rtol=1e-4)
    np.testing.assert_array_equal(covariance, np.diag(np.diag(covariance)))


def test_only_frames_with_metres_and_headings_have_a_vertex():
    records = [
        record("a", 1, 2, 3.0),
        record("b", 1, 2, None),
        ImageRecord("c", GeoPosition(1.0, 2.0), 3.0),
        record("d", 1, 2, 3.0, RECONSTRUCTION),
        ImageRecord("e", None, 3.0),
        record("f", 1, 2, 3.0, "UTM 31U"),
    ]
    form = g2o_format(records)
    assert [one.path for one in records if form.unfit(one.path) is None] == ["a", "f"]
    assert (form.unfit("a", "c"), form.unfit("a", "f")) == ("c", None)
    assert "--format csv" in form.fault


def test_loops_bring_a_drift_back():
    """A drive around a square has drifted by 40 m; its odometry and one loop pull the ends together."""
    corners = [(0, 0, 90.0), (200, 0, 0.0), (200, 200, 270.0), (0, 200, 180.0), (0, 40, 90.0)]
    form = g2o_format([record(str(n), x, y, heading) for n, (x, y, heading) in enumerate(corners)])
    vertices, [(first, second, measured, information)] = graph(f"{form.header}\n{form.line(loop('4', '0'))}")
    start = np.array([vertices[n] for n in range(5)])
    steps = [error(one, two, np.zeros(3)) for one, two in pairwise(start)]
    root = np.linalg.cholesky(information).T

    def residuals(flat):
        poses = np.vstack([start[:1], flat.reshape(-1, 3)])
        odometry = [error(a, b, step) / [10, 10, 0.05] for (a, b), step in zip(pairwise(poses), steps, strict=True)]
        return np.concatenate([*odometry, root @ error(poses[first], poses[second], measured)])

    before = np.linalg.norm(start[4, :2] - start[0, :2])
    found = least_squares(residuals, start[1:].ravel()).x.reshape(-1, 3)
    assert np.linalg.norm(found[-1, :2] - start[0, :2]) < before / 2
    assert before == pytest.approx(40)
