"""Made-up checkpoints of full size, imported and loaded, against the authors' own code.

The references, and what writes the checkpoints, are beside the real images: see `README.md` there.
"""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from references import made_up_checkpoint
from torch.nn.functional import grid_sample
from typer.testing import CliRunner

from vpr_dhe.cli.app import app
from vpr_dhe.models.network_file import NetworkFile, load_network
from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import CorrelationLookup
from vpr_dhe.verification.estimators.ransac_flow.network import FineNetwork, FineSettings, flow_of_cells

pytestmark = [pytest.mark.slow, pytest.mark.data]

MAX_RELATIVE_DIFFERENCE = 1e-4
WIDTH, HEIGHT = 320, 240


def imported(source: Path, folder: Path) -> NetworkFile:
    """Network file of a made-up checkpoint, by the program; the family is found from the tensors."""
    checkpoint = made_up_checkpoint(source, folder)
    out = folder / "network.safetensors"
    result = CliRunner().invoke(app, ["import-weights", str(checkpoint), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return load_network(out)


def crop(photo: Path, size: Size, left: int, top: int, side: Size) -> torch.Tensor:
    """Part of a photo that was resized by Pillow, in 0..255."""
    pixels = np.asarray(PIL.Image.open(photo).convert("RGB").resize(size, PIL.Image.Resampling.BILINEAR))
    part = pixels[top : top + side.height, left : left + side.width]
    return torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float()


def require_near(found: torch.Tensor, expected: np.ndarray) -> None:
    reference = torch.from_numpy(expected)
    assert found.shape == reference.shape
    assert float((found - reference).norm() / reference.norm()) < MAX_RELATIVE_DIFFERENCE


@torch.no_grad()
def test_ransac_flow(real_images, tmp_path):
    source = real_images.parent / "parity" / "ransac_flow"
    file = imported(source, tmp_path)
    network = file.load_into(FineNetwork(file.settings_as(FineSettings))).eval()
    facts, reference = json.loads((source / "facts.json").read_text()), np.load(source / "reference.npz")
    coarse = torch.tensor(facts["coarse_homography"])
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    last = torch.tensor([WIDTH - 1, HEIGHT - 1])
    pixels = torch.stack(torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy"), dim=-1)
    for number, name in enumerate(reference["photos"]):
        photo = real_images / "train_open" / "facades" / str(name)
        target, other = (
            crop(photo, Size(336, 256), left, top, Size(WIDTH, HEIGHT)) / 255 for left, top in ((8, 8), (13, 4))
        )
        warped = grid_sample(other, mapped(coarse, torch.stack([x, y], dim=-1))[None], align_corners=True)
        features, warped_features = network.extract(target), network.extract(warped)
        fine, back = network.compare(warped_features, features), network.compare(features, warped_features)
        require_near(features[0, :, ::14][:, :3, ::13], reference["feat_target"][number])
        require_near(fine.correlation[0, :, ::4, ::4], reference["corr12"][number])
        cells = torch.tensor([WIDTH / 8, HEIGHT / 8]).view(2, 1, 1)
        require_near(flow_of_cells(fine.offset_logits)[0] / cells * 2, reference["flow"][number])
        require_near(network.matchability_of_cells(fine.correlation)[0, 0], reference["match12"][number])
        require_near(network.matchability_of_cells(back.correlation)[0, 0], reference["match21"][number])
        ends = mapped(coarse, 2 * (pixels + fine.flow_px[0].permute(1, 2, 0)) / last - 1)
        require_near(ends[::8, ::8], reference["flow12"][number])
        matchability = fine.matchability[0, 0] * (ends.abs() <= 1).all(dim=-1)
        require_near(matchability[::8, ::8], reference["match"][number])


@torch.no_grad()
def test_ihn(real_images, tmp_path):
    source = real_images.parent / "parity" / "ihn"
    network = IterativeEstimator.from_file(imported(source, tmp_path)).network
    reference = np.load(source / "reference.npz")
    for number, name in enumerate(reference["photos"]):
        photo = real_images / "train_open" / "facades" / str(name)
        a, b = (crop(photo, Size(160, 160), left, top, Size(128, 128)) / 255 for left, top in ((16, 16), (20, 13)))
        (map_a, map_b) = network.extract(torch.cat([a, b]))[0][:, None]
        require_near(map_a[0, :8, 0, :3].T, reference["feature_first"][number])
        statistics = torch.stack([map_a.mean(), map_a.std(correction=0), map_a.min(), map_a.max()])
        require_near(statistics, reference["feature_stats"][number])
        cells, flow = network._cells(torch.zeros(1, 4, 2), 4)
        first = torch.cat([CorrelationLookup(map_a, map_b, network._options)(cells), flow], dim=1)
        require_near(first[0, :, ::8, ::8], reference["correlation"][number])
        shifts = torch.cat(network(a, b))[:, [[0, 1], [3, 2]]]  # corners in rows, not around
        require_near(shifts.permute(0, 3, 1, 2), reference["displacement"][number])


def mapped(homography: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    found = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1) @ homography.T
    return found[..., :2] / found[..., 2:]
