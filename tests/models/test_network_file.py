"""Network files: what a method learned is loaded by that method, and by no other."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from vpr_dhe.errors import ModelError
from vpr_dhe.models.network_file import NetworkFile, load_network, load_networks, network_file


@dataclass(frozen=True)
class SomeSettings:
    width: int
    kind: str = "plain"


@pytest.fixture
def file() -> NetworkFile:
    return network_file("stretch", SomeSettings(3), nn.Linear(3, 2), training_data="photos", licence="MIT")


@pytest.mark.parametrize("as_path", [str, Path])
def test_round_trip(file, tmp_path, as_path):
    file.save(as_path(tmp_path / "n.safetensors"))
    loaded = load_network(as_path(tmp_path / "n.safetensors"))
    assert (loaded.method, loaded.licence, loaded.training_data) == ("stretch", "MIT", "photos")
    assert loaded.settings_as(SomeSettings) == SomeSettings(3)
    network = loaded.load_into(nn.Linear(3, 2))
    assert torch.equal(network.weight, file.tensors["weight"])


def test_weights_do_not_change_with_the_network_they_were_taken_from():
    network = nn.Linear(3, 2)
    file = network_file("stretch", SomeSettings(3), network, training_data="photos")
    before = file.tensors["weight"].clone()
    nn.init.zeros_(network.weight)
    assert torch.equal(file.tensors["weight"], before)


def test_what_belongs_to_another_network_is_refused(file):
    with pytest.raises(ModelError, match="does not fit its network"):
        file.load_into(nn.Linear(4, 2))
    with pytest.raises(ModelError, match="expected width, kind"):
        NetworkFile("stretch", {"depth": 3}, "MIT", "photos", {}).settings_as(SomeSettings)


def test_other_files_are_refused(file, tmp_path):
    from vpr_dhe.models.catalogue import open_model

    open_model("cct-offline").save(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="no 'vpr-dhe network 1' metadata"):
        load_network(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="does not exist"):
        load_network(tmp_path / "none.safetensors")
    path = tmp_path / "changed.safetensors"
    file.save(path)
    path.write_bytes(path.read_bytes().replace(b"photos", b"videos"))
    with pytest.raises(ModelError, match="checksum"):
        load_network(path)


def test_one_file_for_each_method(file, tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        file.save(path)
    assert list(load_networks(paths[:1])) == ["stretch"]
    with pytest.raises(ModelError, match="second network file for stretch"):
        load_networks(paths)
