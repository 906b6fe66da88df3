"""Contract of all importers: damaged, missing and malicious files."""

from pathlib import Path

import pytest
import torch
from random_models import random_model

from vpr_dhe.cli.import_weights import KINDS
from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import FAMILIES, NETWORKS, import_checkpoints, load_importer

pytestmark = pytest.mark.parametrize("family", [*FAMILIES, *NETWORKS])


class Malicious:
    def __reduce__(self):
        return pytest.fail, ("code in a checkpoint was executed",)


def test_code_in_a_checkpoint_is_not_executed(saved, family):
    with pytest.raises(ModelError, match=r"not a readable PyTorch checkpoint: .* an object of _pytest\.outcomes"):
        import_checkpoints(family, [saved("malicious", {"encoder": Malicious()})])


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", bytes(range(256)) * 4, b"PK\x03\x04broken", b"\x80\x02."]
)
def test_damaged_files(tmp_path, content, family):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable PyTorch checkpoint") as raised:
        import_checkpoints(family, [path])
    assert "\n" not in str(raised.value)


def test_damaged_safetensors(tmp_path, family):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        import_checkpoints(family, [path])


def test_model_files_are_not_imported_again(tmp_path, family):
    path = tmp_path / "model.safetensors"
    random_model("cct_7_7x2_224", "gem", 1, 32).save(path)
    with pytest.raises(ModelError, match="is already a model file"):
        import_checkpoints(family, [path])


def test_descriptors_that_depend_on_the_batch_are_refused(saved, family):
    """As in CricaVPR, whose encoder compares the images of a batch."""
    keys = ("module.backbone.patch_embed.proj.weight", "module.encoder.layers.0.self_attn.in_proj_weight")
    path = saved("CricaVPR.pth", {"model_state_dict": {key: torch.zeros(1) for key in keys}})
    with pytest.raises(ModelError, match=r"over the images of a batch \(encoder\.layers\.0.*CricaVPR"):
        import_checkpoints(family, [path])


def test_other_checkpoints_are_not_recognised(family):
    assert not load_importer(family).recognises({"fc.weight": (10, 3)})


@pytest.mark.parametrize("as_path", [str, Path])
def test_missing_file(tmp_path, family, as_path):
    with pytest.raises(ModelError, match="does not exist"):
        import_checkpoints(family, [as_path(tmp_path / "nothing.pth")])


def test_too_many_files(tmp_path, family):
    with pytest.raises(ModelError, match=rf"3 files were given; kind {family} takes \d at most"):
        import_checkpoints(family, [tmp_path / "nothing.pth"] * 3)


def test_the_command_line_offers_it(family):
    assert family in KINDS
