"""Inputs of the fine network: candidates warped into the frame of the query."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.geometry.coordinates import resizing
from vpr_dhe.geometry.homography import same_side_of_horizon
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image, Size


def sampled(image: Image, seen_to_image: Float64[np.ndarray, "3 3"], seen: Size) -> Image:
    """Warp an image to size `seen`, averaged first if it shrinks; beyond the border, the border's pixels repeat."""
    middle = np.array([(seen.width - 1) / 2, (seen.height - 1) / 2, 1.0])
    depth = seen_to_image[2] @ middle
    pixels_per_pixel = float(np.sqrt(np.abs(np.linalg.det(seen_to_image) / depth**3)))
    size = image_size(image)
    smaller = Size(*(max(1, round(side / max(1.0, pixels_per_pixel))) for side in size))
    resized = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    matrix = resizing(size, smaller).numpy() @ seen_to_image
    warped = cv2.warpPerspective(
        resized, matrix, seen, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return warped.astype(np.uint8, copy=False)


def lies_in(
    places: Float64[Tensor, "height width 2"],
    points: Float64[Tensor, "height width 2"],
    matrix: Float64[Tensor, "3 3"],
    size: Size,
) -> Bool[Tensor, "height width"]:
    """Mask of places that lie in an image and on the right side of the horizon: that of the middle of the points.

    `places` are the points mapped by the homography `matrix`.
    """
    rows, columns = points.shape[:2]
    near = same_side_of_horizon(matrix, points.flatten(0, 1), points[rows // 2, columns // 2]).view(rows, columns)
    limits = torch.tensor([size.width - 0.5, size.height - 0.5], dtype=torch.float64)
    return ((places > -0.5) & (places < limits)).all(dim=-1) & near


def to_tensor(image: Image, device: torch.device) -> Float[Tensor, "1 3 height width"]:
    """Convert an image to a batch of one in [0, 1]."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255
