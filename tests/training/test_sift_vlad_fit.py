"""The fit that makes the offline model, small enough to run again."""

import pytest
import torch

from vpr_dhe.errors import BadInputError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images import decode_image
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.training.sift_vlad import FitSettings, fit


@pytest.mark.slow
def test_a_fitted_model_is_deterministic_and_loads(tmp_path):
    town = SyntheticTown(seed=2, streets=2)
    cameras = town.database_cameras()[:24]
    layout = write_town(tmp_path / "town", town, cameras, town.query_cameras(4, 0, cameras))
    small = FitSettings(dimension=16, words=8, reduced_dimension=24, views_per_image=2)
    first = fit(layout.database_paths, small, "a town that does not exist")
    again = fit(layout.database_paths, small, "a town that does not exist")
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert torch.isfinite(first.tensors["aggregator.projection"]).all()
    out = tmp_path / "fitted.safetensors"
    first.save(out)
    extractor = load_extractor(str(out))
    assert extractor.spec.dimension == 16
    views = extractor.extract([decode_image(path) for path in layout.query_paths])
    assert all(float(view.global_descriptor.norm()) == pytest.approx(1, abs=1e-4) for view in views)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="needs more images"):
        fit([tmp_path / "a.jpg"], FitSettings(), "nothing")
