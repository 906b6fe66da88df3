"""Packages of extras: imported, or named with what installs them."""

import cmath
import sys
import tomllib
from pathlib import Path

import pytest

from vpr_dhe.errors import MissingExtraError
from vpr_dhe.runtime.extras import EXTRAS, import_extra


def test_the_first_package_is_returned():
    assert import_extra("train", "cmath", "json.decoder") is cmath


def test_any_that_is_missing_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "json.decoder", None)
    message = (
        r"training requires packages of the extra 'train' that cannot be imported \(.*json\.decoder.*\); "
        r'.*pip install "vpr-dhe\[train\]"'
    )
    with pytest.raises(MissingExtraError, match=message):
        import_extra("train", "cmath", "json.decoder")


def test_extras_are_those_that_can_be_installed():
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        installable = tomllib.load(file)["project"]["optional-dependencies"]
    assert EXTRAS.keys() <= installable.keys()
