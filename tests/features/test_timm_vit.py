"""timm transformers with random weights; nothing is downloaded."""

import huggingface_hub.constants
import pytest
import timm
import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.backbones.timm_vit import TimmViT, _preprocessing, timm_model_file
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Grid, Preprocessing, Size

DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"


@pytest.fixture
def shallow(monkeypatch):
    """Let timm make two blocks instead of twelve, and fetch nothing."""
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **options: create(name, **options | {"pretrained": False, "depth": 2})
    )


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("name", "size", "grid", "prefix", "has_class_token"),
    [
        ("vit_tiny_patch16_224", Size(224, 224), Grid(14, 14), 1, True),
        ("vit_tiny_patch16_224", Size(64, 96), Grid(6, 4), 1, True),
        (DINOV2, Size(112, 56), Grid(4, 8), 5, True),
        ("deit_tiny_distilled_patch16_224", Size(48, 32), Grid(2, 3), 2, True),
        ("eva02_tiny_patch14_224", Size(42, 70), Grid(5, 3), 1, True),
        ("vit_pwee_patch16_reg1_gap_256", Size(48, 32), Grid(2, 3), 1, False),
    ],
)
def test_tokens_are_those_of_timm_without_the_prefix(name, size, grid, prefix, has_class_token):
    backbone = TimmViT(name, blocks=1).eval()
    plain = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    plain.blocks = plain.blocks[:1]
    plain.load_state_dict(backbone.vit.state_dict())
    images = torch.randn(2, 3, size.height, size.width)
    with torch.no_grad():
        tokens, expected = backbone(images), plain.forward_features(images)
    assert tokens.grid == grid
    assert tokens.patches.shape == (2, grid.rows * grid.columns, backbone.dimension)
    assert torch.equal(tokens.patches, expected[:, prefix:])
    assert (tokens.class_token is not None) == has_class_token
    if has_class_token:
        assert torch.equal(tokens.class_token, expected[:, 0])


def test_all_blocks_are_kept_by_default():
    with torch.device("meta"):
        assert len(TimmViT("vit_tiny_patch16_224").vit.blocks) == 12


@pytest.mark.parametrize("blocks", [0, 13])
def test_impossible_truncation(blocks):
    with pytest.raises(ModelError, match="choose 1 to 12"):
        build_backbone("timm:vit_tiny_patch16_224", blocks=blocks, input_size=Size(224, 224))


def test_patch_must_divide_the_input():
    with pytest.raises(ModelError, match="patches of 14 x 14 pixels"):
        build_backbone(f"timm:{DINOV2}", blocks=1, input_size=Size(224, 225))


def preprocessing_of(name: str, size: Size | None = None) -> Preprocessing:
    with torch.device("meta"):
        return _preprocessing(TimmViT(name), size)


def test_preprocessing_is_that_of_the_pretraining():
    preprocessing = preprocessing_of(DINOV2)
    assert preprocessing.size == Size(518, 518)
    assert preprocessing.interpolation == "bicubic"
    assert preprocessing.antialias
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing_of("vit_tiny_patch16_224").std == (0.5, 0.5, 0.5)


def test_preprocessing_rounds_the_size_down_to_the_patch():
    assert preprocessing_of(DINOV2, Size(330, 5)).size == Size(322, 14)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_bas_patch16_224", "did you mean vit_base_patch16_224"),
        ("vit_tiny_patch16_224.nonsense", "did you mean vit_tiny_patch16_224"),
        ("hf-hub:someone/something", "timm has no model"),
        ("resnet18", "no grid of patch tokens"),
        ("swin_tiny_patch4_window7_224", "no grid of patch tokens"),
    ],
)
def test_no_such_transformer(name, said):
    with torch.device("meta"), pytest.raises(ModelError, match=said):
        TimmViT(name)


def test_no_network_and_no_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as raised:
        timm_model_file("vit_tiny_patch16_224")
    said = str(raised.value)
    assert said.startswith("weights of vit_tiny_patch16_224 could not be downloaded (")
    assert "`sift-vlad` and local .safetensors model files work offline" in said
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("name", "aggregator"), [("vit_tiny_patch16_224", "cls"), ("vit_pwee_patch16_reg1_gap_256", "mean")]
)
def test_fetched_weights_become_a_model_file(tmp_path, name, aggregator):
    timm_model_file(name, size=Size(100, 70)).save(tmp_path / "vit.safetensors")
    model = load_model(tmp_path / "vit.safetensors")
    assert model.preprocessing.size == Size(96, 64)
    assert model.architecture.aggregator == aggregator
    assert model.licence
    backbone = build_backbone(model.architecture.backbone, blocks=None, input_size=model.preprocessing.size)
    backbone.load_state_dict(model.part("backbone"), strict=True)
