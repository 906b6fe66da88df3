"""The catalogue of published models."""

import re
import subprocess
import sys

import pytest

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import FAMILIES, NETWORKS
from vpr_dhe.models.names import BUNDLED, require_model
from vpr_dhe.models.published import PUBLISHED, PUBLISHED_NETWORKS, Licence, Place, of_family
from vpr_dhe.report.tables.models import model_lines, network_lines, networks_table, published_table
from vpr_dhe.verification.estimators.registry import ESTIMATORS, Needs


def test_the_catalogue_does_not_need_torch():
    code = "import sys, vpr_dhe.models.hub; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("model", PUBLISHED.values(), ids=list(PUBLISHED))
def test_every_model_is_complete(model):
    assert re.fullmatch(r"[a-z0-9-]+", model.name)
    assert model.name not in BUNDLED
    assert model.family in FAMILIES
    assert re.fullmatch(r"[\w-]+/[\w-]+", model.repository)
    assert model.place is Place.hub or model.key
    assert model.place is Place.drive or model.file
    assert model.url.startswith("https://")
    assert (model.restriction is None) == (model.licence in (Licence.mit, Licence.apache))
    assert all(0 < value <= 100 for value in model.recall.values())
    name = f"{model.name.removesuffix(str(model.dimension))}N" if model.in_series else model.name
    (line,) = (line for line in published_table().splitlines() if line.startswith(f"{name} "))
    assert re.search(rf"\b{model.dimension}\b", line.removeprefix(name))
    require_model(model.name)


@pytest.mark.parametrize("network", PUBLISHED_NETWORKS.values(), ids=list(PUBLISHED_NETWORKS))
def test_every_network_is_complete(network):
    assert re.fullmatch(r"[a-z0-9-]+", network.name)
    assert network.name not in {*BUNDLED, *PUBLISHED}
    assert network.family in NETWORKS
    # The coarse stage of `ransac-flow` does without a network.
    assert ESTIMATORS[network.method].needs is (Needs.images if network.method == "ransac-flow" else Needs.network)
    assert network.licence in (Licence.mit, Licence.apache)
    assert network.url.startswith("https://")
    assert network.file.endswith(".pth")
    assert any(line.startswith(f"{network.name} ") for line in networks_table().splitlines())
    command = f"vpr-dhe import-weights {network.file} --kind {network.family} --out {network.name}.safetensors"
    assert command in "\n".join(network_lines(network))
    with pytest.raises(ModelError, match=f"{network.name} estimates homographies and extracts no features: download "):
        require_model(network.name)


def test_addresses_of_networks():
    ihn, flow = PUBLISHED_NETWORKS["ihn-mscoco"], PUBLISHED_NETWORKS["ransac-flow-megadepth"]
    assert ihn.url == "https://github.com/imdumpl78/IHN/raw/HEAD/results/mscoco/IHN.pth"
    assert "model.zip?dl=1 and take MegaDepth_Theta1_Eta001_Grad0_0.807.pth out of it, then run" in flow.instructions


def test_addresses():
    assert PUBLISHED["cosplace-resnet50-512"].url == (
        "https://github.com/gmberton/CosPlace/releases/download/v1.0/ResNet50_512_cosplace.pth"
    )
    assert PUBLISHED["mixvpr-4096"].url == "https://drive.google.com/file/d/1vuz3PvnR7vxnDDLQrdHJaOA04SQrtk5L/view"


def test_a_family_has_one_licence():
    """So that the licence of a checkpoint is known from its tensors."""
    for family in FAMILIES:
        assert len({model.licence for model in of_family(family)}) <= 1


def test_sizes_are_those_of_the_tensors():
    """45,834,327 bytes are what torch writes for this layout."""
    assert PUBLISHED["cosplace-resnet18-512"].megabytes == 46
    assert PUBLISHED["eigenplaces-resnet50-2048"].megabytes == 111


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cosplace-resnet18", "there is cosplace-resnet18-32, cosplace-resnet18-64, "),
        ("cosplce-resnet18-512", "did you mean 'cosplace-resnet18-512'"),
        ("lite-vlat", "did you mean 'lite-vlad'"),
    ],
)
def test_misspelt_names(name, hint):
    with pytest.raises(ModelError, match=hint):
        require_model(name)


def test_facts_of_a_model_that_is_not_on_disk():
    text = "\n".join(model_lines("mixvpr-4096"))
    assert "not on disk; about 44 MB to fetch from https://drive.google.com" in text
    assert "without a licence" in text
    assert "msls-val 88.2" in text


def test_models_with_binary_codes_say_so():
    assert "2048 and codes of 512 bits" in published_table()
    text = "\n".join(model_lines("selavprpp-base-rerank"))
    assert "binary codes: 512 bits" in text
    assert "by --index-type binary-codes: msls-val 94.5" in text
    assert "codes" not in "\n".join(model_lines("selavprpp-base"))


def test_facts_of_a_bundled_model_and_of_timm():
    text = "\n".join(model_lines("sift-vlad"))
    assert "licence: Apache-2.0" in text
    assert "fingerprint: c1cc8616" in text
    assert "timm" in model_lines("timm:vit_small_patch14_dinov2")[0]
