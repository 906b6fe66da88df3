"""Groups of options: a command takes them as if each option were a parameter of its own."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vpr_dhe.cli.shared.groups import with_groups


@dataclass(frozen=True)
class Place:
    name: Annotated[str, typer.Argument(help="Of the place.")]
    radius_m: Annotated[float, typer.Option(min=0, help="Around it.")] = 10.0


@dataclass(frozen=True)
class SmallPlace(Place):
    radius_m: float = 1.0


def report(place: Place, count: Annotated[int, typer.Option()], loud: bool = False) -> None:
    """Say where it is."""
    typer.echo(f"{place} {count} {loud}")


def report_small(place: SmallPlace) -> None:
    typer.echo(place)


def invoke(command, *arguments):
    app = typer.Typer(rich_markup_mode=None)
    app.command()(with_groups(command))
    return CliRunner().invoke(app, arguments)


def test_options_of_a_group_arrive_in_it():
    done = invoke(report, "here", "--radius-m", "2", "--count", "3", "--loud")
    assert done.output == f"{Place('here', 2.0)} 3 True\n"
    assert invoke(report, "here", "--count", "3").output == f"{Place('here', 10.0)} 3 False\n"
    assert invoke(report_small, "here").output == f"{SmallPlace('here', 1.0)}\n"


def test_they_are_checked_and_explained_as_any_other():
    assert invoke(report, "here", "--count", "3", "--radius-m", "-1").exit_code == 2
    shown = invoke(report, "--help").output
    assert all(words in shown for words in ("Say where it is.", "Of the place.", "Around it.", "--loud"))


def test_two_options_of_one_name_are_refused():
    def twice(place: Place, radius_m: float = 1.0) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name"):
        with_groups(twice)
