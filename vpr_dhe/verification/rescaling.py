"""Conversion of a verification to other sizes of its images."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.geometry.coordinates import cell_centres, resizing
from vpr_dhe.geometry.homography import normalise, project
from vpr_dhe.records import DenseAlignment, EstimatorDetails, Grid, Size, Verification

Homographies = Float64[np.ndarray, "*planes 3 3"]
Points = Float64[np.ndarray, "points 2"]


class PairSizes(NamedTuple):
    """Sizes of a query and a candidate."""

    query: Size
    candidate: Size


def rescaled(found: Verification, before: PairSizes, after: PairSizes) -> Verification:
    """Convert the verification of a pair of images to the same images at other sizes."""
    if before == after or found.homography is None:
        return found
    return replace(
        found,
        homography=_between(found.homography, before, after),
        query_points=_moved(found.query_points, before.query, after.query),
        candidate_points=_moved(found.candidate_points, before.candidate, after.candidate),
        details=found.details and _details(found.details, before, after),
    )


def _between(homographies: Homographies, before: PairSizes, after: PairSizes) -> Homographies:
    converted = (
        resizing(before.candidate, after.candidate)
        @ torch.from_numpy(homographies)
        @ resizing(after.query, before.query)
    )
    return normalise(converted).numpy()


def _moved(points: Points, before: Size, after: Size) -> Points:
    return project(resizing(before, after), torch.from_numpy(points)).numpy()


def _details(details: EstimatorDetails, before: PairSizes, after: PairSizes) -> EstimatorDetails:
    alignment = details.alignment
    return details if alignment is None else replace(details, alignment=_dense(alignment, before, after))


def _dense(alignment: DenseAlignment, before: PairSizes, after: PairSizes) -> DenseAlignment:
    grid = Grid(*alignment.flow_px.shape[:2])
    places = cell_centres(grid, before.query) + torch.from_numpy(alignment.flow_px).double().view(-1, 2)
    flow = project(resizing(before.candidate, after.candidate), places) - cell_centres(grid, after.query)
    return replace(
        alignment,
        homographies=_between(alignment.homographies, before, after),
        flow_px=flow.view(*grid, 2).float().numpy(),
    )
