"""Models on the way to `lite-vlad`."""

import sys
from pathlib import Path

import pytest

from vpr_dhe.features.extractor import extractor_of, load_extractor
from vpr_dhe.synthetic_town.town import SyntheticTown

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import lite_vlad_steps


def test_without_weights_every_cell_is_reliable(tmp_path):
    steps = lite_vlad_steps.Steps(tmp_path / "no weights", tmp_path / "no data", tmp_path)
    model = steps.model("unweighted")
    town = SyntheticTown(seed=1, streets=2)
    street = town.render(town.database_cameras()[0])
    unweighted, shipped = (
        one.extract([street])[0].local_map.any(dim=1) for one in (extractor_of(model, "m"), load_extractor("lite-vlad"))
    )
    assert (unweighted | ~shipped).all()
    assert unweighted.sum() > shipped.sum() + 10
    assert (tmp_path / "unweighted.safetensors").is_file()


def test_an_unknown_step_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        lite_vlad_steps.main(["weights", "data", "--out", str(tmp_path), "--only", "nonsense"])
    assert "photo-town" in capsys.readouterr().err
