"""CCT against a plain NumPy computation of the published forward pass."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import backbone_names, build_backbone
from vpr_dhe.models.positional_embedding import resize_positional_embedding
from vpr_dhe.records import Grid, Size

HEADS = {256: 4, 384: 6}


def strided(maps, dy, dx, rows, columns):
    return maps[:, dy : dy + 2 * rows - 1 : 2, dx : dx + 2 * columns - 1 : 2]


def numpy_stem(maps, weight):
    """7 x 7 convolution of stride 2 and padding 3, ReLU, 3 x 3 maximum of stride 2 and padding 1."""
    rows, columns = maps.shape[1] // 2, maps.shape[2] // 2
    padded = np.pad(maps, ((0, 0), (3, 3), (3, 3)))
    convolved = np.zeros((weight.shape[0], rows, columns))
    for dy in range(7):
        for dx in range(7):
            convolved += np.einsum("oc,cyx->oyx", weight[:, :, dy, dx], strided(padded, dy, dx, rows, columns))
    padded = np.pad(np.maximum(convolved, 0), ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.max([strided(padded, dy, dx, rows // 2, columns // 2) for dy in range(3) for dx in range(3)], axis=0)


def numpy_norm(x, state, name):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return unit * state[f"{name}.weight"] + state[f"{name}.bias"]


def numpy_attention(x, state, name, heads):
    queries, keys, values = np.split(x @ state[f"{name}.qkv.weight"].T, 3, axis=1)
    width = x.shape[1] // heads
    attended = np.zeros_like(x)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = np.exp(queries[:, own] @ keys[:, own].T / np.sqrt(width))
        attended[:, own] = scores / scores.sum(1, keepdims=True) @ values[:, own]
    return attended @ state[f"{name}.proj.weight"].T + state[f"{name}.proj.bias"]


def numpy_cct(image, state, blocks):
    maps = numpy_stem(image, state["tokenizer.conv_layers.0.0.weight"])
    maps = numpy_stem(maps, state["tokenizer.conv_layers.1.0.weight"])
    x = maps.reshape(maps.shape[0], -1).T + state["classifier.positional_emb"][0]
    for index in range(blocks):
        block = f"classifier.blocks.{index}"
        x = x + numpy_attention(
            numpy_norm(x, state, f"{block}.pre_norm"), state, f"{block}.self_attn", HEADS[x.shape[1]]
        )
        x = numpy_norm(x, state, f"{block}.norm1")
        hidden = x @ state[f"{block}.linear1.weight"].T + state[f"{block}.linear1.bias"]
        hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
        x = x + hidden @ state[f"{block}.linear2.weight"].T + state[f"{block}.linear2.bias"]
    return numpy_norm(x, state, "classifier.norm")


def random_cct(name, blocks, size):
    torch.manual_seed(3)
    backbone = build_backbone(name, blocks=blocks, input_size=size).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() == 2:
                parameter.mul_(3)
    return backbone


@pytest.mark.parametrize(
    ("name", "blocks", "size"),
    [("cct_7_7x2_224", 2, Size(96, 64)), ("cct_14_7x2_384", 1, Size(48, 80)), ("cct_14_7x2_224", 3, Size(64, 64))],
)
def test_agrees_with_numpy(name, blocks, size):
    backbone = random_cct(name, blocks, size)
    image = torch.randn(1, 3, size.height, size.width)
    with torch.no_grad():
        tokens = backbone(image)
    state = {key: value.double().numpy() for key, value in backbone.state_dict().items()}
    expected = numpy_cct(image[0].double().numpy(), state, blocks)
    assert tokens.grid == Grid(size.height // 16, size.width // 16)
    assert tokens.class_token is None
    assert np.abs(tokens.patches[0].numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_parameters_bear_the_published_names_and_shapes():
    with torch.device("meta"):
        backbone = build_backbone("cct_14_7x2_384", blocks=None, input_size=Size(384, 384))
    state = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    assert len(state) == 5 + 14 * 11
    assert state["tokenizer.conv_layers.0.0.weight"] == (64, 3, 7, 7)
    assert state["tokenizer.conv_layers.1.0.weight"] == (384, 64, 7, 7)
    assert state["classifier.positional_emb"] == (1, 576, 384)
    assert state["classifier.norm.bias"] == (384,)
    block = {key.removeprefix("classifier.blocks.13."): shape for key, shape in state.items() if ".13." in key}
    assert block == {
        "pre_norm.weight": (384,),
        "pre_norm.bias": (384,),
        "self_attn.qkv.weight": (1152, 384),
        "self_attn.proj.weight": (384, 384),
        "self_attn.proj.bias": (384,),
        "norm1.weight": (384,),
        "norm1.bias": (384,),
        "linear1.weight": (1152, 384),
        "linear1.bias": (1152,),
        "linear2.weight": (384, 1152),
        "linear2.bias": (384,),
    }


def test_other_input_size_is_the_same_as_weights_resized_to_it():
    trained, wanted = Size(64, 64), Size(128, 96)
    backbone, native = random_cct("cct_7_7x2_224", 1, trained), random_cct("cct_7_7x2_224", 1, wanted)
    state = backbone.state_dict()
    key = "classifier.positional_emb"
    native.load_state_dict({**state, key: resize_positional_embedding(state[key], Grid(4, 4), Grid(6, 8))})
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        tokens = backbone(images)
        assert tokens.grid == Grid(6, 8)
        assert torch.equal(tokens.patches, native(images).patches)


def test_resized_embedding_keeps_rows_apart_from_columns():
    along_x = torch.arange(5.0).repeat(3).view(1, 15, 1)
    resized = resize_positional_embedding(along_x, Grid(3, 5), Grid(6, 10)).view(6, 10)
    assert torch.allclose(resized, resized[:1].expand(6, 10), atol=1e-5)
    assert torch.all(resized[0].diff() >= 0)
    assert resized[0, 3:7].tolist() == pytest.approx([1.25, 1.75, 2.25, 2.75], abs=0.01)


def test_images_do_not_depend_on_their_batch():
    backbone = random_cct("cct_7_7x2_224", 2, Size(64, 64))
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = backbone(images).patches
        alone = torch.cat([backbone(image[None]).patches for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("blocks", [0, 8, -1])
def test_impossible_truncation(blocks):
    with pytest.raises(ModelError, match="choose 1 to 7"):
        build_backbone("cct_7_7x2_224", blocks=blocks, input_size=Size(64, 64))


@pytest.mark.parametrize("size", [Size(100, 64), Size(64, 100), Size(0, 64)])
def test_input_size_must_be_whole_cells(size):
    with pytest.raises(ModelError, match="multiples of 16"):
        build_backbone("cct_7_7x2_224", blocks=None, input_size=size)


@pytest.mark.parametrize("name", ["cct_7", "resnet50", "", "timmy:vit"])
def test_unknown_backbone(name):
    with pytest.raises(ModelError, match=r"cct_14_7x2_384, timm:NAME"):
        build_backbone(name, blocks=None, input_size=Size(64, 64))


def test_names():
    names = ["cct_7_7x2_224", "cct_14_7x2_224", "cct_14_7x2_384", "timm:NAME", "timm-cnn:NAME"]
    assert backbone_names()[: len(names)] == names
