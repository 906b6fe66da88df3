"""Features of made-up checkpoints of full size, from file to vector, against the authors' own code.

The references, and what writes the checkpoints, are beside the real images: see `README.md` there.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from references import made_up_checkpoint
from typer.testing import CliRunner

from vpr_dhe.cli.app import app
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.loading import load_image
from vpr_dhe.models.model_file import load_model

pytestmark = [pytest.mark.slow, pytest.mark.data]

MAX_RELATIVE_DIFFERENCE = 1e-4


class Reference(NamedTuple):
    """Imported model and what the authors' code makes of the photos."""

    model: Path
    photos: list[np.ndarray]
    outputs: dict[str, np.ndarray]


@pytest.fixture
def reference(real_images, tmp_path, request) -> Iterator[Reference]:
    folder, kind = request.param
    source = real_images.parent / "parity" / folder
    checkpoint = made_up_checkpoint(source, tmp_path)
    model = tmp_path / "imported.safetensors"
    result = CliRunner().invoke(app, ["import-weights", str(checkpoint), "--kind", kind, "--out", str(model)])
    assert result.exit_code == 0, result.output
    checkpoint.unlink()  # these take gigabytes
    outputs = dict(np.load(source / "reference.npz"))
    photos = [load_image(real_images / "train_open" / "facades" / str(name)) for name in outputs["photos"]]
    yield Reference(model, photos, outputs)
    model.unlink(missing_ok=True)


def require_same(found, expected):
    """Vectors differ by 1e-4 of their norm at most."""
    found, expected = np.stack(found), np.asarray(expected)
    assert found.shape == expected.shape
    difference = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert difference.max() < MAX_RELATIVE_DIFFERENCE


def extracted(reference: Reference, photos, **preprocessing):
    if preprocessing:
        model = load_model(reference.model)
        replace(model, preprocessing=replace(model.preprocessing, **preprocessing)).save(reference.model)
    return load_extractor(str(reference.model)).extract(photos)


def descriptors(features):
    return [one.global_descriptor.numpy() for one in features]


@pytest.mark.parametrize(
    "reference",
    [
        ("megaloc", "megaloc"),
        ("megaloc_release", "megaloc"),
        ("salad_8448", "salad"),
        ("salad_544", "salad"),
        ("cliquemining", "cliquemining"),
        ("boq_dinov2", "boq"),
        ("imagevpr", "imagevpr"),
        ("selavprpp_base", "selavprpp"),
        ("selavprpp_base_rerank", "selavprpp"),
        ("edtformer", "edtformer"),
    ],
    indirect=True,
    ids=lambda pair: pair[0],
)
def test_descriptors(reference):
    require_same(descriptors(extracted(reference, reference.photos)), reference.outputs["descriptor"])


@pytest.mark.parametrize("reference", [("selavprpp_base_rerank", "selavprpp")], indirect=True)
def test_binary_codes(reference):
    """Bits whose number is next to zero may differ, as rounding decides them."""
    extractor = load_extractor(str(reference.model))
    codes = np.stack([one.code.numpy() for one in extractor.extract(reference.photos)])
    expected = reference.outputs["hash_bits"]
    assert codes.dtype == np.uint8
    assert codes.shape == expected.shape == (len(reference.photos), 64)
    assert extractor.spec.code_bits == 512
    differing = np.unpackbits(codes ^ expected, axis=1).astype(bool)
    assert not (differing & (np.abs(reference.outputs["hash"]) >= 1e-5)).any()


@pytest.mark.parametrize("reference", [("megaloc", "megaloc")], indirect=True)
def test_megaloc_rounds_the_size_of_a_photo(reference):
    """Inputs of the photo's own size, which is neither square nor of whole patches."""
    photo = reference.photos[0]
    height, width = photo.shape[:2]
    found = extracted(reference, [photo], width=width, height=height)
    require_same(descriptors(found), reference.outputs["descriptor_native"][:1])
    assert found[0].grid == (round(height / 14), round(width / 14))


@pytest.mark.parametrize("reference", [("selavprpp_base", "selavprpp")], indirect=True)
def test_selavprpp_without_antialiasing(reference):
    found = extracted(reference, reference.photos, antialias=False)
    require_same(descriptors(found), reference.outputs["descriptor_no_antialias"])


@pytest.mark.parametrize("reference", [("fol_base", "fol")], indirect=True)
def test_fol_with_its_local_maps(reference):
    """Rounding may swap a cell at the border of what is kept, hence the few that may differ in number."""
    found, outputs = extracted(reference, reference.photos), reference.outputs
    require_same(descriptors(found), outputs["descriptor"])
    for features, grid, count in zip(found, outputs["local_grid"], outputs["local_count"][:, 1], strict=True):
        local_map = features.local_map.numpy().reshape(89, 89, 128)
        kept = local_map.any(-1)
        assert abs(int(kept.sum()) - int(count)) < 100
        require_same(local_map[::11, ::11][kept[::11, ::11]], grid[kept[::11, ::11]])
    for number, features in enumerate(found):
        rows = features.local_map.numpy()
        rows = rows[rows.any(1)]
        require_same(rows[:4], outputs["local_first"][number])
        require_same(rows[-2:], outputs["local_last"][number])


@pytest.mark.parametrize("reference", [("fol_base", "fol")], indirect=True)
def test_fol_at_the_size_of_its_evaluation(reference):
    (found,) = extracted(reference, reference.photos[:1], width=504, height=504)
    require_same([found.global_descriptor.numpy()], reference.outputs["descriptor_504"])
    assert found.grid == (141, 141)
    assert abs(int(found.local_map.any(1).sum()) - int(reference.outputs["local_count_504"][0, 1])) < 100
