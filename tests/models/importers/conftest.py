"""Checkpoints written to files."""

import pytest
import torch


@pytest.fixture
def saved(tmp_path):
    def save(name, content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save
