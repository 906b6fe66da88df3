"""Visibility of surfaces: polygons are filled into an index map, far to near, at twice the image's size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from vpr_dhe.synthetic_town.arrays import Matrix, Vector
from vpr_dhe.synthetic_town.camera import Camera
from vpr_dhe.synthetic_town.layout import Layout
from vpr_dhe.synthetic_town.painter import Split, far_to_near, painter_tree
from vpr_dhe.synthetic_town.plans import CrossingPlan, FrontPlan, RoadPlan
from vpr_dhe.synthetic_town.surfaces import Facade

_Polygon: TypeAlias = Float64[np.ndarray, "_corners 3"]

_SUPERSAMPLING = 2
_NEAR_M = 0.1
# From pixels to the supersampled grid: the centre of a pixel is the centre of its 2 x 2 block.
_TO_FINE = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
# Surfaces are drawn in pieces of this length, each with a texture resolution for its distance.
_PIECE_M = {FrontPlan: 4.0, RoadPlan: 5.0, CrossingPlan: 5.0}
_PLAIN_PIECE_M = 10.0


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    def within(self, size: tuple[int, int]) -> "Box":
        """Clip to an image of this (width, height)."""
        left, top = max(self.left, 0), max(self.top, 0)
        right, bottom = min(self.left + self.width, size[0]), min(self.top + self.height, size[1])
        return self._replace(left=left, top=top, width=right - left, height=bottom - top)

    @property
    def window(self) -> tuple[slice, slice]:
        """Slices of rows and columns, to index an image."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True, eq=False)
class Scene:
    """Surfaces of the town cut into convex pieces, and the tree for the order of its buildings.

    Corners are padded by repeating the last one; `building` is -1 for the ground.
    """

    surfaces: tuple[Facade, ...]
    surface: Int32[np.ndarray, " pieces"]
    corners_m: Float64[np.ndarray, "pieces corners 3"]
    normal: Float64[np.ndarray, "pieces 3"]
    building: Int32[np.ndarray, " pieces"]
    order: Split | int

    @classmethod
    def of(cls, layout: Layout) -> "Scene":
        """Cut the surfaces of a town."""
        pieces = [(facade, polygon) for facade in layout.surfaces for polygon in _cut(facade)]
        max_corners = max(len(polygon) for _, polygon in pieces)
        padded = [np.pad(polygon, ((0, max_corners - len(polygon)), (0, 0)), mode="edge") for _, polygon in pieces]
        return cls(
            surfaces=layout.surfaces,
            surface=np.array([facade.index for facade, _ in pieces], np.int32),
            corners_m=np.stack(padded),
            normal=np.stack([facade.normal for facade, _ in pieces]),
            building=np.array([facade.building for facade, _ in pieces], np.int32),
            order=painter_tree(layout.footprints),
        )

    def ranks(self, centre_m: Vector) -> Int32[np.ndarray, " pieces"]:
        """Order of drawing of each piece, seen from a point: the ground first, then buildings far to near."""
        buildings = list(far_to_near(self.order, centre_m))
        rank = np.full(len(buildings) + 1, -1, np.int32)
        rank[buildings] = np.arange(len(buildings))
        return rank[self.building]


class View:
    """Map of the piece of the town at each pixel of a supersampled image; -1 is sky.

    `visible` contains, for each piece in view, its bounding box and its mask in the box (255 where visible).
    """

    def __init__(self, scene: Scene, camera: Camera) -> None:
        self.camera = camera
        self.size = (_SUPERSAMPLING * camera.width_px, _SUPERSAMPLING * camera.height_px)
        self.intrinsics: Matrix = _TO_FINE @ camera.intrinsics
        self.projection: Float64[np.ndarray, "3 4"] = _TO_FINE @ camera.projection
        self.pieces = np.full(self.size[::-1], -1, np.int32)
        self._scene = scene
        self._planes: dict[int, Matrix] = {}
        boxes = self._fill()
        areas_px = np.bincount(self.pieces.ravel() + 1, minlength=len(scene.surface) + 1)[1:]
        self.visible = {piece: self._seen(piece, box) for piece, box in boxes.items() if areas_px[piece]}

    def facade(self, piece: int) -> Facade:
        """Surface of a piece."""
        return self._scene.surfaces[self._scene.surface[piece]]

    def surface_map(self) -> Int32[np.ndarray, "fine_height fine_width"]:
        """Index of the surface at each supersampled pixel, -1 for sky."""
        return np.append(self._scene.surface, np.int32(-1))[self.pieces]

    def pixel_to_plane(self, facade: Facade) -> Matrix:
        """Matrix from supersampled pixels to metres along right and up of a surface; the third row is 1 / depth."""
        if facade.index not in self._planes:
            self._planes[facade.index] = np.linalg.inv(self.projection @ facade.plane_to_world)
        return self._planes[facade.index]

    def depth_m(self, facade: Facade, x: float, y: float) -> float:
        """Depth of a surface along the viewing direction, at a supersampled pixel."""
        return 1 / max(float(self.pixel_to_plane(facade)[2] @ (x, y, 1.0)), 1e-4)

    def inverse_depth_map(self, box: Box) -> Float32[np.ndarray, "height width"]:
        """Map of 1 / depth in 1/m in a rectangle, 0 for sky."""
        chosen = self._inverse_depths[self.pieces[box.window]]
        x = np.arange(box.left, box.left + box.width, dtype=np.float32)
        y = np.arange(box.top, box.top + box.height, dtype=np.float32)
        return chosen[:, :, 0] * x[None, :] + chosen[:, :, 1] * y[:, None] + chosen[:, :, 2]

    @cached_property
    def _inverse_depths(self) -> Float32[np.ndarray, "pieces_and_sky 3"]:
        """Coefficients c of 1 / depth = c . (x, y, 1), in 1/m, of each visible piece; the last row is the sky's."""
        table = np.zeros((len(self._scene.surface) + 1, 3), np.float32)
        for piece in self.visible:
            table[piece] = self.pixel_to_plane(self.facade(piece))[2]
        return table

    def _fill(self) -> dict[int, Box]:
        """Fill the pieces far to near; returns the bounding boxes of those that were drawn."""
        scene, centre_m = self._scene, self.camera.centre_m
        points = (scene.corners_m - centre_m) @ self.camera.rotation.T
        limits, offsets = self._frustum()
        sides = points @ limits.T + offsets
        facing = np.einsum("pc,pc->p", scene.normal, centre_m - scene.corners_m[:, 0]) > 1e-3
        wanted = np.flatnonzero(facing & (sides.max(axis=1) > 0).all(axis=1))
        crossed = sides.min(axis=1) < 0
        projected = self._project(points)
        boxes = {}
        for piece in wanted[np.argsort(scene.ranks(centre_m)[wanted], kind="stable")].tolist():
            corners = projected[piece]
            if crossed[piece].any():
                clipped = points[piece].tolist()
                for limit, offset in zip(
                    limits[crossed[piece]].tolist(), offsets[crossed[piece]].tolist(), strict=True
                ):
                    clipped = _clip(clipped, limit, offset)
                if len(clipped) < 3:
                    continue
                corners = self._project(np.array(clipped))
            # With four fractional bits, corners have a precision of a sixteenth of a supersampled pixel.
            cv2.fillConvexPoly(self.pieces, corners, piece, shift=4)
            boxes[piece] = self._bounding_box(corners)
        return boxes

    def _project(self, points: Float64[np.ndarray, "*shape 3"]) -> Int32[np.ndarray, "*shape 2"]:
        """Project camera coordinates to sixteenths of supersampled pixels; only valid for points in front."""
        depth = np.maximum(points[..., 2:], _NEAR_M)
        pixels = points[..., :2] / depth * self.intrinsics[0, 0] + self.intrinsics[:2, 2]
        return np.clip(np.rint(pixels * 16), -(2**24), 2**24).astype(np.int32)

    def _bounding_box(self, corners: Int32[np.ndarray, "_corners 2"]) -> Box:
        """Box of the pixels that a filled polygon may touch."""
        left, top, width, height = cv2.boundingRect(corners >> 4)
        return Box(left - 1, top - 1, width + 3, height + 3).within(self.size)

    def _frustum(self) -> tuple[Float64[np.ndarray, "5 3"], Float64[np.ndarray, "5"]]:
        """Half-spaces limit . point + offset >= 0 of the near plane and the image's edges (one pixel wider)."""
        (focal, _, middle_x), (_, _, middle_y) = self.intrinsics[:2]
        width, height = self.size
        limits = [
            [0, 0, 1],
            [focal, 0, middle_x + 1],
            [-focal, 0, width - middle_x],
            [0, focal, middle_y + 1],
            [0, -focal, height - middle_y],
        ]
        return np.array(limits, np.float64), np.array([-_NEAR_M, 0, 0, 0, 0])

    def _seen(self, piece: int, box: Box) -> tuple[Box, UInt8[np.ndarray, "height width"]]:
        mask = cv2.inRange(self.pieces[box.window], piece, piece)
        inner = Box(*cv2.boundingRect(mask))
        return Box(box.left + inner.left, box.top + inner.top, inner.width, inner.height), mask[inner.window]


def _cut(facade: Facade) -> list[_Polygon]:
    """Cut a surface's outline into pieces, in world coordinates."""
    count = max(math.ceil(facade.width_m / _PIECE_M.get(type(facade.plan), _PLAIN_PIECE_M)), 1)
    polygons = []
    for number in range(count):
        low_m, high_m = facade.width_m * number / count, facade.width_m * (number + 1) / count
        outline = _clip(_clip(facade.outline_m.tolist(), (1.0, 0.0), -low_m), (-1.0, 0.0), high_m)
        polygons.append(facade.points(np.array(outline)))
    return polygons


def _clip(polygon: list[list[float]], normal: Sequence[float], offset: float) -> list[list[float]]:
    """Clip a convex polygon, in any dimension, to normal . point + offset >= 0 (Sutherland-Hodgman)."""
    kept: list[list[float]] = []
    sides = [sum(n * p for n, p in zip(normal, point, strict=True)) + offset for point in polygon]
    for index, (point, side) in enumerate(zip(polygon, sides, strict=True)):
        before, side_before = polygon[index - 1], sides[index - 1]
        if (side >= 0) != (side_before >= 0):
            part = side_before / (side_before - side)
            kept.append([a + part * (b - a) for a, b in zip(before, point, strict=True)])
        if side >= 0:
            kept.append(point)
    return kept
