"""Aggregators and local heads of published models, against their formulas."""

import math

import numpy as np
import pytest
import torch
from random_models import random_model
from small_aggregators import small_aggregator
from torch import nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.aggregators.boq import BagOfQueries, BoqSizes, EncoderLayer
from vpr_dhe.features.aggregators.salad import Salad, SaladSizes
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.features.fol_head import FoLHead
from vpr_dhe.features.local_head import build_local_head
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.records import Grid

DIMENSION = 7
GRID = Grid(3, 4)


def tokens(**further):
    random = torch.Generator().manual_seed(0)
    patches, start = torch.randn(2, 12, DIMENSION, generator=random), torch.randn(2, DIMENSION, generator=random)
    return DenseTokens(patches, GRID, start, **further)


def made(name):
    torch.manual_seed(0)
    aggregator = small_aggregator(name, DIMENSION, GRID.rows * GRID.columns).eval()
    for parameter in aggregator.parameters():
        torch.nn.init.normal_(parameter, 0.3, 0.7)
    return aggregator


def two_layers(layers, x):
    first, _, last = layers
    return (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias


def transported(aggregator, patches, dustbin):
    """The plan of one image as the paper has it: an augmented score matrix, and marginals of n + m units of mass."""
    scores = torch.cat([two_layers(aggregator.score, patches).T, dustbin[None]])
    cells, clusters = len(patches), len(scores) - 1
    unit = -math.log(cells + clusters)
    a = torch.full((clusters + 1,), unit)
    a[-1] += math.log(cells - clusters)
    u, v = torch.zeros(clusters + 1), torch.zeros(cells)
    for _ in range(3):
        u = a - torch.logsumexp(scores + v, dim=1)
        v = unit - torch.logsumexp(scores + u[:, None], dim=0)
    return torch.exp(scores + u[:, None] + v - unit)[:-1]


def expected_descriptor(aggregator, patches, start, plan):
    features = two_layers(aggregator.cluster_features, patches)
    clusters = torch.stack([normalize((plan[index, :, None] * features).sum(0), dim=0) for index in range(len(plan))])
    # Flattened by number of the feature, then by cluster.
    parts = [normalize(two_layers(aggregator.token_features, start), dim=0), clusters.T.reshape(-1)]
    return normalize(torch.cat(parts), dim=0)


@torch.no_grad()
def test_salad_transports_cells_to_clusters():
    aggregator, given = made("salad"), tokens()
    found = aggregator(given)
    assert found.shape == (2, 5 + 3 * 4)
    for index in range(2):
        plan = transported(aggregator, given.patches[index], aggregator.dust_bin.expand(12))
        torch.testing.assert_close(aggregator.plan(given)[index], plan, rtol=1e-4, atol=1e-6)
        expected = expected_descriptor(aggregator, given.patches[index], given.class_token[index], plan)
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_cell_is_used_more_than_once():
    plan = made("salad").plan(tokens())
    assert (plan >= 0).all()
    assert plan.sum(1).max() <= 1 + 1e-5


@torch.no_grad()
def test_megaloc_projects_the_descriptor():
    salad = made("salad")
    linear = {"linear.weight": torch.randn(6, 17), "linear.bias": torch.randn(6)}
    megaloc = build_aggregator("salad", DIMENSION, salad.state_dict() | linear)
    megaloc.load_state_dict(salad.state_dict() | linear)
    expected = normalize(salad(tokens()) @ linear["linear.weight"].T + linear["linear.bias"], dim=1)
    torch.testing.assert_close(megaloc(tokens()), expected)


def test_sizes_of_published_models():
    for clusters, length, token, dimension in ((64, 128, 256, 8448), (16, 32, 32, 544), (32, 64, 64, 2112)):
        assert SaladSizes(clusters, length, token).unprojected == dimension
    with torch.device("meta"):
        assert build_aggregator("salad", 768).sizes == SaladSizes()
        boq = build_aggregator("boq", 1024, BagOfQueries(1024, BoqSizes(width=512)).state_dict())
    assert boq.boqs[0].cross_attn.num_heads == 8
    assert boq.fc.out_features * 512 == 16384


def test_too_few_cells_for_the_clusters():
    with pytest.raises(ModelError, match="12 clusters need an input of more cells than 12"):
        Salad(DIMENSION, SaladSizes(clusters=12, hidden=4))(tokens())


@pytest.mark.parametrize("name", ["salad", "edtformer"])
def test_class_token_is_needed(name):
    with pytest.raises(ModelError, match="needs a class token"):
        small_aggregator(name, DIMENSION, GRID.rows * GRID.columns)(DenseTokens(tokens().patches, GRID))


@torch.no_grad()
def test_fol_sends_cells_without_attention_to_the_dustbin():
    attention = torch.rand(2, 12, generator=torch.Generator().manual_seed(2)) / 20
    attention[0, :3] = torch.tensor([0.01, 0.0099, 3.0])
    aggregator, given = made("fol"), tokens(class_attention=attention)
    assert torch.equal(aggregator.dustbin(given)[0, :3], torch.tensor([0.99, 1.0, -2.0]))
    for index in range(2):
        mask = torch.where(attention[index] < 0.01, 0.0, attention[index])
        plan = transported(aggregator, given.patches[index], 1 - mask)
        torch.testing.assert_close(aggregator.confidence(given)[index], plan.mean(0), rtol=1e-4, atol=1e-6)
        expected = expected_descriptor(aggregator, given.patches[index], given.class_token[index], plan)
        torch.testing.assert_close(aggregator(given)[index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fol", "aggregation-tokens"])
def test_other_backbones_lack_what_these_need(name):
    with pytest.raises(ModelError, match=r"choose the backbone \w+:NAME"):
        small_aggregator(name, DIMENSION, GRID.rows * GRID.columns)(tokens())


def attended(layer, queries, cells):
    """Attention with one head, from the weights alone."""
    width = queries.shape[-1]
    parts = zip(
        (queries, cells, cells), layer.in_proj_weight.split(width), layer.in_proj_bias.split(width), strict=True
    )
    q, k, v = (x @ weight.T + bias for x, weight, bias in parts)
    heads = layer.num_heads
    split = [x.unflatten(-1, (heads, -1)).transpose(-2, -3) for x in (q, k, v)]
    weights = torch.softmax(split[0] @ split[1].mT / (width / heads) ** 0.5, dim=-1)
    return (weights @ split[2]).transpose(-2, -3).flatten(-2) @ layer.out_proj.weight.T + layer.out_proj.bias


@torch.no_grad()
def test_boq_asks_the_cells():
    aggregator, given = made("boq"), tokens()
    maps = given.patches.mT.reshape(2, DIMENSION, *GRID)
    cells = aggregator.norm_input(aggregator.proj_c(maps).flatten(2).mT)
    answers = []
    for block in aggregator.boqs:
        encoder = block.encoder
        cells = encoder.norm1(cells + attended(encoder.self_attn, cells, cells))
        cells = encoder.norm2(cells + encoder.linear2(encoder.linear1(cells).clamp(min=0)))
        queries = block.norm_q(block.queries + attended(block.self_attn, block.queries, block.queries))
        answers.append(block.norm_out(attended(block.cross_attn, queries.expand(2, -1, -1), cells)))
    expected = normalize(aggregator.fc(torch.cat(answers, dim=1).mT).flatten(1), dim=1)
    torch.testing.assert_close(aggregator(given), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_encoder_layer_of_boq_is_that_of_torch():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(128, 2, 512, dropout=0, batch_first=True).eval()
    ours = EncoderLayer(128, 2)
    ours.load_state_dict(theirs.state_dict())
    cells = torch.randn(2, 5, 128)
    torch.testing.assert_close(ours(cells), theirs(cells), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_edtformer_decodes_all_tokens():
    aggregator, given = made("edtformer"), tokens()
    memory = aggregator.fc(torch.cat([given.class_token[:, None], given.patches], dim=1))
    answers = aggregator.queries.expand(2, -1, -1)
    for layer in aggregator.layers:
        answers = layer.norm1(answers + attended(layer.self_attn, answers, answers))
        answers = layer.norm2(answers + attended(layer.multihead_attn, answers, memory))
    projected = aggregator.channel_proj(answers).mT @ aggregator.row_proj.weight.T + aggregator.row_proj.bias
    torch.testing.assert_close(aggregator(given), normalize(projected.flatten(1), dim=1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_selavprpp_pools_mapped_cells_of_unit_norm():
    aggregator, given = made("selavprpp"), tokens()
    aggregator.pool.p.fill_(2.5)
    cells = normalize(aggregator.linear1(given.patches), dim=-1).double().numpy()
    assert (cells < 0).any()
    pooled = np.mean(np.maximum(cells, 1e-6) ** 2.5, axis=1) ** (1 / 2.5)
    expected = pooled @ aggregator.linear2.weight.double().numpy().T + aggregator.linear2.bias.double().numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(aggregator(given), expected, rtol=1e-4, atol=1e-5)


def test_aggregation_tokens_follow_each_other():
    several = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    given = DenseTokens(torch.zeros(1, 12, 2), GRID, aggregation_tokens=several)
    torch.testing.assert_close(build_aggregator("aggregation-tokens", 2)(given), torch.tensor([[0.6, 0.0, 0.0, 0.8]]))


@torch.no_grad()
def test_local_head_of_fol_keeps_the_most_confident_cells():
    """Of 16 x 16 tokens, 31 are left out, and with each the cells of the finer map that are nearest to it."""
    torch.manual_seed(0)
    grid, head = Grid(16, 16), FoLHead(DIMENSION, hidden=5, out=3).eval()
    patches, confidence = torch.randn(1, 256, DIMENSION), torch.rand(1, 256)
    found = head(patches, grid, confidence)
    assert head.grid_for(grid) == (61, 61)
    assert found.shape == (1, 61 * 61, 3)
    maps = head.upconv2(head.upconv(patches.mT.reshape(1, DIMENSION, 16, 16)).clamp(min=0))
    kept = confidence[0] > confidence[0].sort().values[30]
    nearest = (torch.arange(61) * 16) // 61
    expected = normalize(maps[0], dim=0) * kept.view(16, 16)[nearest][:, nearest]
    torch.testing.assert_close(found[0], expected.flatten(1).T)


def test_local_head_of_fol_by_its_name():
    head = FoLHead(DIMENSION, hidden=5, out=3)
    again = build_local_head("fol", DIMENSION, head.state_dict())
    again.load_state_dict(head.state_dict())
    with pytest.raises(ModelError, match="needs an aggregator that returns its confidence"):
        again(torch.zeros(1, 12, DIMENSION), GRID)


def test_extractor_of_fol_has_the_grid_of_its_local_maps():
    model = random_model("fol:small", "fol", 1, 112).with_local_head("fol", FoLHead(384, hidden=5, out=3).state_dict())
    extractor = NeuralExtractor(model, "fol", torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    (features,) = extractor.extract([image])
    assert extractor.spec.grid == features.grid == (29, 29)
    assert extractor.spec.local_dimension == 3
    torch.testing.assert_close(features.local_map.norm(dim=1), torch.ones(29 * 29))
