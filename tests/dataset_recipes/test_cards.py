"""Every card is what the schema asks for, and its options are those of the reader that they name."""

import importlib.util
import shlex
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

from vpr_dhe.cli.train import descriptor
from vpr_dhe.datasets import LAYOUTS, Protocol
from vpr_dhe.datasets.pairs import PAIR_LAYOUTS

DATASETS = Path(__file__).parents[2] / "datasets"
CARDS = sorted(DATASETS.glob("*.toml"))
# An option of the evaluation itself, not of a reader.
EVALUATION_FLAGS = {"--one-per-panorama"}


def load(name: str) -> ModuleType:
    """A script's module, which stands beside the scripts that it imports."""
    spec = importlib.util.spec_from_file_location(f"datasets_{name}", DATASETS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(DATASETS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DATASETS))
    return module


cards = load("cards")

MINIMAL = """
name = "mine"
title = "Mine"
page = "https://example.org"
obtain = "I took it."
terms = "Mine."
layout = "vpr"
tree = "images"

[[split]]
name = "test"
database = "images/test/database"
queries = "images/test/queries"
database_images = 3
query_images = 2
source = "I counted."

[[protocol]]
name = "test"
split = "test"
options = "--split test --radius-m 25"
meaning = "Within 25 m."
source = "I chose it."

[[published]]
method = "Guess"
protocol = "test"
recall_at_1 = 50
source = "I guessed."
"""


def options_of(card, variant) -> tuple[str, dict[str, str]]:
    """The layout of a protocol, and its options without those of the evaluation."""
    words = [word for word in shlex.split(variant.options) if word not in EVALUATION_FLAGS]
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    return pairs.pop("--layout", card.layout), pairs


def variants():
    for path in CARDS:
        card = cards.read_card(path)
        yield from (pytest.param(card, variant, id=f"{card.name}-{variant.name}") for variant in card.protocol)


def test_the_data_sets_of_the_field_have_cards():
    expected = "pitts30k pitts250k msls tokyo247 nordland st_lucia sf_xl eynsham svox amstertime sped gardens_point"
    assert {path.stem for path in CARDS} >= {*expected.split(), "hpatches", "gsv_cities"}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_satisfies_the_schema_and_is_named_after_its_file(path: Path):
    assert cards.read_card(path).name == path.stem


@pytest.mark.parametrize(("card", "variant"), list(variants()))
def test_options_are_those_of_the_layout(card, variant):
    if variant.options is None:
        assert card.layout == "hpatches"
        return
    layout, options = options_of(card, variant)
    if layout in PAIR_LAYOUTS:
        assert not options
        return
    if layout in cards.TRAINING_LAYOUTS:
        taken = signature(descriptor.run).parameters
        assert {flag.removeprefix("--").replace("-", "_") for flag in options} <= taken.keys()
        return
    names = {flag.removeprefix("--").replace("-", "_") for flag in options}
    assert names <= LAYOUTS[layout].options
    assert names <= {field.name for field in fields(Protocol)}


@pytest.mark.parametrize(("card", "variant"), list(variants()))
def test_folders_in_options_are_those_of_the_split(card, variant):
    if variant.options is None:
        return
    layout, options = options_of(card, variant)
    if layout in (*PAIR_LAYOUTS, *cards.TRAINING_LAYOUTS):
        return
    split = card.split_named(variant.split)
    if layout == "folders":
        assert {options["--database"], options["--queries"]} == {split.database, split.queries}
    else:
        assert f"/{options['--split']}/" in f"/{split.database}/" or split.name == options["--split"]


@pytest.mark.parametrize(("card", "variant"), list(variants()))
def test_a_protocol_never_asks_more_queries_than_there_are(card, variant):
    there = card.split_named(variant.split).query_images
    assert variant.queries is None or there is None or 1 <= variant.queries <= there


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('source = "I guessed."', "", "[[published]] 1 has no source"),
        ('source = "I guessed."', 'source = " "', "expected text"),
        ('protocol = "test"', 'protocol = "tset"', "published for protocol 'tset', which is not there"),
        ('split = "test"', 'split = "tset"', "names split 'tset'"),
        ("recall_at_1 = 50", "recall_at_1 = 5000", "expected percent"),
        ("recall_at_1 = 50", 'recall_at_1 = "50"', "expected a number"),
        ("database_images = 3", "database_images = 0", "expected at least one"),
        ("database_images = 3", "database_images = true", "expected a whole number"),
        ("database_images = 3", "databse_images = 3", "has a key 'databse_images'"),
        ('layout = "vpr"', 'layout = "vrp"', "expected one of vpr, msls, folders, hpatches, gsv-cities"),
        ('queries = "images/test/queries"', "", "neither sequences nor both"),
        ("[[published]]", "[published]", "write [[published]] above each"),
        ("[[split]]", "[[split]", "is not TOML"),
    ],
)
def test_a_faulty_card_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, complaint: str):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert cards.read_card(path).name == "mine"
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(cards.CardError) as raised:
        cards.read_card(path)
    assert complaint in str(raised.value)
