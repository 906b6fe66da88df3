"""Growth of a DHE head: what it computes stays, and what is repeated can become different."""

import sys
from pathlib import Path

import torch

from vpr_dhe.records import Grid
from vpr_dhe.verification.estimators.dhe import DheHead

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import dhe_growth


def random_head() -> DheHead:
    """A head none of whose parameters is as in a new one."""
    torch.manual_seed(0)
    head = DheHead(Grid(6, 6)).eval()
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return head


def maps() -> torch.Tensor:
    """Maps of 6 x 6 cells of three queries and three candidates."""
    return torch.nn.functional.normalize(torch.rand(2, 3, 6, 6, 8) - 0.3, dim=4)


def repeated(of_both: torch.Tensor) -> torch.Tensor:
    return of_both.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flatten(2, 3)


def test_a_grown_head_computes_the_same():
    head, of_both = random_head(), maps()
    large = dhe_growth.grown(head, noise=0.0).eval()
    for one in (head, large):
        one.encoder.layers[0].norm1.eps = 0.0
    small = head(*of_both.flatten(2, 3))
    found = large(*repeated(of_both))
    assert small.query.std() > 0.1
    torch.testing.assert_close(found.query, small.query, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.candidate, small.candidate, atol=1e-3, rtol=1e-4)


def test_repeated_numbers_of_an_attention_head_learn_different_things():
    head, of_both = random_head(), maps()
    inputs = torch.nn.functional.normalize(repeated(of_both) + 0.1 * torch.rand(2, 3, 144, 8), dim=3)
    apart = {}
    for noise in (0.0, 0.2):
        large = dhe_growth.grown(head, noise)
        large(*inputs).query.square().sum().backward()
        gradient = large.encoder.layers[1].self_attn.in_proj_weight.grad
        first, second = gradient[::4], gradient[1::4]
        apart[noise] = float((first - second).norm() / first.norm())
    assert apart[0.0] < 1e-4
    assert apart[0.2] > 1e-2
