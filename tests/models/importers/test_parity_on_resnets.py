"""Descriptors of made-up checkpoints of full size, from file to vector, against the authors' own code.

The references, and what writes the checkpoints, are beside the real images: see `README.md` there.
"""

import numpy as np
import pytest
from references import made_up_checkpoint
from typer.testing import CliRunner

from vpr_dhe.cli.app import app
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.loading import load_image
from vpr_dhe.models.model_file import load_model

pytestmark = [pytest.mark.slow, pytest.mark.data]


@pytest.mark.parametrize(
    ("folder", "kind", "name"),
    [
        ("cosplace_resnet18_512", "cosplace", "cosplace-resnet18-512"),
        ("cosplace_vgg16_512", "cosplace", "cosplace-vgg16-512"),
        ("eigenplaces_resnet50_2048", "eigenplaces", "eigenplaces-resnet50-2048"),
        ("mixvpr_resnet50_4096", "mixvpr", "mixvpr-4096"),
        ("boq_resnet50", "resnet50", "boq-resnet50"),
    ],
)
def test_descriptors(real_images, tmp_path, folder, kind, name):
    source = real_images.parent / "parity" / folder
    checkpoint = made_up_checkpoint(source, tmp_path)
    arguments = ["import-weights", str(checkpoint), "--out", str(tmp_path / "model.safetensors")]
    result = CliRunner().invoke(app, arguments)  # the family is found from tensors and the name of the file
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "model.safetensors")
    assert model.name == name
    assert kind in str(model.origin).lower()
    reference = np.load(source / "reference.npz")
    photos = [load_image(real_images / "train_open" / "facades" / str(photo)) for photo in reference["photos"]]
    features = load_extractor(str(tmp_path / "model.safetensors")).extract(photos)
    found = np.stack([one.global_descriptor.numpy() for one in features])
    assert np.linalg.norm(found - reference["descriptor"], axis=1).max() < 1e-4
