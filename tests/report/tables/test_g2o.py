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


def wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + math.pi) % math.tau - math.pi


def residual(ends: np.ndarray, measured: np.ndarray) -> np.ndarray:
    moved = error(ends[:3], ends[3:], measured)
    return np.array([*moved[:2], wrapped(moved[2])])


def optimised(poses: np.ndarray, edges: list[tuple[int, int, np.ndarray, np.ndarray]], rounds: int = 15) -> np.ndarray:
    """Gauss-Newton over poses (x, y, yaw), the first one held, with derivatives by differences."""
    poses = poses.copy()
    for _ in range(rounds):
        hessian, gradient = 1e-9 * np.eye(3 * len(poses)), np.zeros(3 * len(poses))
        hessian[:3, :3] += 1e9 * np.eye(3)
        for first, second, measured, information in edges:
            ends = np.concatenate([poses[first], poses[second]])
            zero = residual(ends, measured)
            jacobian = np.stack([(residual(ends + 1e-6 * axis, measured) - zero) / 1e-6 for axis in np.eye(6)], axis=1)
            at = np.r_[3 * first : 3 * first + 3, 3 * second : 3 * second + 3]
            hessian[np.ix_(at, at)] += jacobian.T @ information @ jacobian
            gradient[at] += jacobian.T @ information @ zero
        poses -= np.linalg.solve(hessian, gradient).reshape(-1, 3)
    return poses


def test_two_rounds_that_drift_come_nearer_to_the_truth():
    """A wheel that measures 2 % too much, and a gyroscope that is off by 1.5 degrees a step, over two rounds of 300 m.

    The loops are those that images show: of frames at most 25 m apart with headings at most 15 degrees apart.
    """
    steps = np.tile([12.5, 0.0, math.tau / 24], (48, 1))
    truth, drifted = (
        driven_along(moves) for moves in (steps, steps * [1.02, 1.0, 1.0] + [0.0, 0.0, math.radians(1.5)])
    )
    form = g2o_format([record(str(n), x, y, 90 - math.degrees(yaw)) for n, (x, y, yaw) in enumerate(drifted)])
    rng = np.random.default_rng(0)
    loops = []
    for later in range(24, 49):
        near = [one for one in range(later - 12) if seen_together(truth[one], truth[later])]
        loops += [loop(str(later), str(rng.choice(near)))] if near else []
    vertices, edges = graph("\n".join([form.header, *map(form.line, loops)]))
    assert len(edges) == len(loops) >= 20
    start = np.array([vertices[n] for n in range(49)])
    np.testing.assert_allclose(start[:, :2], drifted[:, :2], atol=1e-3)
    certain = np.diag([1 / 0.5**2, 1 / 0.5**2, 1 / math.radians(2) ** 2])
    odometry = [
        (n, n + 1, move * [1.02, 1.0, 1.0] + [0.0, 0.0, math.radians(1.5)], certain) for n, move in enumerate(steps)
    ]
    found = optimised(start, [*odometry, *edges])
    before, after = (np.linalg.norm(poses[:, :2] - truth[:, :2], axis=1).mean() for poses in (start, found))
    assert after < 0.5 * before


def driven_along(steps: np.ndarray) -> np.ndarray:
    """Poses from the origin, each step ahead along the direction of before, and turned."""
    poses = [np.zeros(3)]
    for ahead, _, turn in steps:
        x, y, yaw = poses[-1]
        poses.append(np.array([x + ahead * math.cos(yaw), y + ahead * math.sin(yaw), yaw + turn]))
    return np.array(poses)


def seen_together(one: np.ndarray, other: np.ndarray) -> bool:
    turned = abs(float(wrapped(one[2] - other[2])))
    return math.dist(one[:2], other[:2]) <= 25 and turned <= math.radians(15) + 1e-9
