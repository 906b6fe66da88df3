"""A backbone with a linear layer on its tokens."""

import pytest
import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.records import Grid, Size


def test_tokens_are_those_of_the_backbone_projected():
    built = build_backbone("projected:16:cct_7_7x2_224", blocks=1, input_size=Size(48, 32)).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        found, expected = built(images), built.backbone(images)
        projected = expected.patches @ built.projection.weight.T + built.projection.bias
    assert (found.grid, built.dimension, built.convolutional) == (Grid(2, 3), 16, True)
    torch.testing.assert_close(found.patches, projected)


@pytest.mark.parametrize(
    "name", ["projected:", "projected:16", "projected:0:cct_7_7x2_224", "projected:x:cct_7_7x2_224"]
)
def test_names_without_dimension_or_backbone(name):
    with pytest.raises(ModelError, match="names no dimension and backbone; write projected:80:cct_7_7x2_224"):
        build_backbone(name, blocks=None, input_size=Size(32, 32))
    with pytest.raises(ModelError, match="there is no backbone 'magic'"):
        build_backbone("projected:16:magic", blocks=None, input_size=Size(32, 32))
