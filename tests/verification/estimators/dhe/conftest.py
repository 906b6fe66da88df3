"""A DHE head whose points depend on what it sees."""

import pytest
import torch

from vpr_dhe.verification.estimators.dhe import DheHead


@pytest.fixture(scope="session")
def random_head():
    torch.manual_seed(5)
    head = DheHead().eval()
    with torch.no_grad():
        head.pe.normal_(std=0.05)
        for parameter in head.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        # Points that depend on the maps by tens of pixels, around the corners.
        head.linear.weight.mul_(500)
        head.linear.bias.copy_(torch.tensor([0.0, 0.0, 384.0, 0.0, 384.0, 384.0, 0.0, 384.0] * 2))
    return head
