"""Recall beside published figures, on a small made-up data set, a model of random weights and figures of our own."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from random_models import random_model

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import reproduce

from vpr_dhe.evaluation.evaluate import evaluate
from vpr_dhe.models.published import PUBLISHED

PLACES = 6
FIGURES = """
[protocols.little]
folders = ["little"]
options = { split = "test", radius_m = 25.0 }
meaning = "six queries"
tolerance = 0.5

[[figures]]
model = "random"
recall_at_1 = { little = %s }
source = "made up"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set whose protocol is known, and the same of another name, side by side."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    for name in ("little-town", "other"):
        for place in range(PLACES):
            pixels = cv2.resize(random.integers(0, 256, (4, 4, 3), np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
            for side, shift in (("database", 0), ("queries", 9)):
                path = (
                    root / name / "images/test" / side / f"@{500_000 + 100 * place + shift}@5000000@31@U@@@@@@@@@@.png"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                noisy = pixels + random.normal(0, 20, pixels.shape)
                PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    random_model("timm-cnn:resnet10t", "gem", None, 32).save(path)
    return path


@pytest.fixture
def measured(monkeypatch, capsys, tmp_path):
    """Run the script; returns exit code, stdout, stderr and the document that it wrote."""

    def run(published: float, *arguments: object):
        (tmp_path / "published.toml").write_text(FIGURES % published)
        options = ("--published", tmp_path / "published.toml", "--out", tmp_path / "out")
        monkeypatch.setattr("sys.argv", ["reproduce.py", *map(str, (*arguments, *options))])
        code, output = reproduce.main(), capsys.readouterr()
        document = tmp_path / "out/reproduce.json"
        return code, output.out, output.err, json.loads(document.read_text()) if document.exists() else None

    return run


def test_recall_is_that_of_evaluate_beside_the_published_one(measured, data, model):
    expected = evaluate(data / "little-town", model=str(model), verifiers=["none"], adapt="off").retrieval
    ours = expected.scores.recall
    code, said, _, document = measured(round(ours[1], 1) + 0.5, data, "--models", model)
    assert code == 0
    first, second = document["rows"]
    assert first["recall"] == {str(rank): ours[rank] for rank in reproduce.RANKS}
    assert (first["dataset"], first["protocol"], first["queries"]) == ("little-town", "six queries", PLACES)
    assert (first["difference"], first["reproduced"], first["source"]) == (-0.5, True, "made up")
    assert (second["published"], second["difference"], second["reproduced"], second["source"]) == (None, None, None, "")
    assert "within 25 m" in second["protocol"]
    assert "1 of 1 published figures reproduced; 0 models missing" in said
    assert "| -0.5 | 0.5 | yes | made up |" in said


def test_a_figure_that_is_not_reproduced_gives_exit_code_1(measured, data, model):
    code, said, _, document = measured(0.0, data / "little-town", "--models", model)
    assert (code, document["rows"][0]["reproduced"]) == (1, False)
    assert "| no |" in said


@pytest.mark.slow
def test_models_that_cannot_be_fetched_are_listed(measured, data, model, monkeypatch, tmp_path):
    monkeypatch.setenv("VPR_DHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    names = ("megaloc", "mixvpr-4096", "nothing")
    code, said, stderr, document = measured(0.0, data / "other", "--models", *names, model)
    assert code == 0
    assert list(document["missing"]) == list(names)
    assert "megaloc is missing: megaloc could not be downloaded" in stderr
    assert "mixvpr-4096 is missing: mixvpr-4096 is published on Google Drive" in stderr
    assert "0 of 0 published figures reproduced; 3 models missing" in said
    assert "- `megaloc`: " in (tmp_path / "out/reproduce.md").read_text()
    assert measured(0.0, data / "other", "--models", "nothing")[0] == 2


def test_without_data_sets_it_says_so(measured, tmp_path):
    code, _, stderr, document = measured(0.0, tmp_path)
    assert (code, document) == (2, None)
    assert "no data set was found" in stderr


def test_figures_are_of_published_models_and_known_protocols():
    published = reproduce.Published.read(reproduce.PUBLISHED_RECALL)
    assert set(published.figures) <= set(PUBLISHED)
    for figure in published.figures.values():
        assert set(figure.recall_at_1) <= set(published.protocols)
        assert figure.source.startswith("github.com/")
        # The catalogue says the same where it has a figure.
        assert figure.recall_at_1.items() <= PUBLISHED[figure.model].recall.items() | {("nordland", 83.8)}


def test_binary_codes_propose_what_descriptors_order(monkeypatch):
    monkeypatch.setattr(reproduce, "PUBLISHED_CANDIDATES", 2)
    vectors, codes = torch.eye(4), torch.tensor([[1.0, 1], [1, -1], [-1, -1], [1, 1]])
    database, query = reproduce.Descriptors(vectors, codes), torch.tensor([[0.2, 0, 0.9, 0.3]])
    assert reproduce.nearest(reproduce.Descriptors(query), reproduce.Descriptors(vectors))[0, 0] == 2
    found = reproduce.nearest(reproduce.Descriptors(query, torch.tensor([[1.0, 1]])), database)
    assert found[0, :2].tolist() == [3, 0]
