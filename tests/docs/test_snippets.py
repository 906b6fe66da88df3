"""The code in README and manual: it runs on a small town, or is checked as far as it can be without running."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import little_town
import pytest
import torch
from snippets import PAGES, ROOT, Snippet, snippets_of
from typer.main import get_command

from vpr_dhe.cli import main
from vpr_dhe.cli.app import app
from vpr_dhe.errors import VprDheError
from vpr_dhe.models.names import LITE_VLAD

SNIPPETS = {page.relative_to(ROOT).as_posix(): list(snippets_of(page)) for page in PAGES}
WITH_CODE = [page for page, snippets in SNIPPETS.items() if any(one.mark is None for one in snippets)]
# Pages that a newcomer reads first; the others run with the slow tests.
FIRST = ("README.md", "docs/getting-started.md")
SLOW = [page for page, snippets in SNIPPETS.items() if any(one.mark == "slow" for one in snippets)]
ALL = [snippet for snippets in SNIPPETS.values() for snippet in snippets]
# Registries that worked examples add to.
REGISTRIES = (
    ("vpr_dhe.verification.estimators.registry", "ESTIMATORS"),
    ("vpr_dhe.features.backbones", "_BUILDERS"),
    ("vpr_dhe.datasets", "LAYOUTS"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, worker_id) -> Path:
    return little_town.made_once(tmp_path_factory, worker_id)


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the town to work in; registries are afterwards what they were before."""
    folder = little_town.copy(made, tmp_path / "work")
    monkeypatch.chdir(folder)
    kept = {place: dict(getattr(import_module(place[0]), place[1])) for place in REGISTRIES}
    threads = torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)
    for (module, name), before in kept.items():
        registry = getattr(import_module(module), name)
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page in FIRST else pytest.mark.slow) for page in WITH_CODE]
)
def test_code_runs(page, folder, monkeypatch):
    run([snippet for snippet in SNIPPETS[page] if snippet.mark is None], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_slow_code_runs(page, folder, monkeypatch):
    run([snippet for snippet in SNIPPETS[page] if snippet.mark == "slow"], monkeypatch)


def run(snippets: list[Snippet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page in their order; those in Python share their names."""
    names: dict[str, object] = {"__name__": "__manual__"}
    for snippet in snippets:
        if snippet.language == "python":
            code = "\n" * (snippet.line - 1) + snippet.code
            exec(compile(code, str(ROOT / snippet.page), "exec", dont_inherit=True), names)
        else:
            for command in snippet.commands:
                run_command(command, monkeypatch)


def run_command(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if command[:2] == ["pip", "install"] or command == ["pytest"]:
        return
    if command[0] == "python":
        subprocess.run([sys.executable, str(ROOT / command[1]), *command[2:]], check=True, stdout=subprocess.DEVNULL)
        return
    assert command[0] == "vpr-dhe", f"{command[0]} cannot run in a test; mark the block with <!-- no-run: REASON -->"
    if "--keep" in command:  # what a reader makes by this command is there already
        shutil.rmtree(command[command.index("--keep") + 1])
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, f"{command} ended with {ended.value.code}"


@pytest.mark.parametrize("snippet", [pytest.param(one, id=f"{one.page}:{one.line}") for one in ALL if one.reason])
def test_what_does_not_run_is_there(snippet):
    """Options of commands, files of scripts and names of modules exist, even where nothing runs."""
    if snippet.language == "python":
        require_importable(snippet.code)
        return
    for command in snippet.commands:
        require_known(command)


def test_all_that_does_not_run_has_a_reason():
    assert [f"{one.page}:{one.line}" for one in ALL if one.mark == "no-run" and not one.reason] == []


def test_included_commands_are_there():
    """Those above the tables of benchmarks."""
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        for snippet in snippets_of(path):
            for command in snippet.commands:
                require_known(command)


def require_importable(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"


def require_known(command: list[str]) -> None:
    while "=" in command[0]:
        command = command[1:]
    program = command[0]
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = command[-1].partition("[")[2].rstrip("]").split(",")
        assert set(filter(None, asked)) <= extras.keys(), f"{command[-1]} asks for an extra that is not there"
    elif program == "torchrun":
        require_known(["vpr-dhe", *command[command.index("vpr_dhe") + 1 :]])
    elif program == "vpr-dhe":
        parse(command[1:])
    elif program == "python" and command[1] == "-m":
        import_module(command[2])
    elif program == "python" or program.startswith("benchmarks/"):
        require_script(command[1:] if program == "python" else command)


def parse(arguments: list[str]) -> None:
    """Parse a command line as the program would; Typer raises for what is unknown."""
    command, name = get_command(app), "vpr-dhe"
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    # Files and indexes of the example need not exist.
    with suppress(VprDheError):
        command.make_context(name, arguments)


def require_script(arguments: list[str]) -> None:
    script = ROOT / arguments[0]
    assert script.is_file(), f"there is no {arguments[0]}"
    text = script.read_text()
    for option in (word for word in arguments if word.startswith("--")):
        assert option in text, f"{arguments[0]} has no {option}"


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_checks_run_what_the_readme_says():
    line = 'pip install ".[test]" && pytest'
    assert line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_every_command_is_in_the_readme_and_the_manual(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    manual = "".join(page.read_text(encoding="utf-8") for page in PAGES[1:])
    assert f"`{name}`" in manual or f"vpr-dhe {name}" in manual


@pytest.mark.parametrize("stage", sorted(get_command(app).commands["train"].commands))
def test_every_stage_is_in_the_manual(stage):
    assert f"`{stage}`" in (ROOT / "docs" / "guides" / "train.md").read_text(encoding="utf-8")


def test_figures_of_the_readme_are_measured():
    """Each row of the first table is in benchmarks/results/accuracy.md."""
    measured = (ROOT / "benchmarks" / "results" / "accuracy.md").read_text(encoding="utf-8")
    of_town = measured[measured.index("streetview_west, standard layout, test, within 25 m:\n") :].split("\n\n")[1]
    lines = [line.strip("| ").split(" | ") for line in of_town.splitlines()]
    town = {method: figures for model, method, *figures in lines if model == f"`{LITE_VLAD}`"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| ").split(" | ")
        for line in readme.splitlines()
        if line.startswith(("| retrieval,", "| re-ranked"))
    ]
    measured_rows = [town[method] for method in ("extracted", "retrieval", "`magsac`, top 100")]
    assert [figures for _, *figures in rows] == [[*row[:3], row[6]] for row in measured_rows]


@pytest.mark.slow
def test_the_manual_builds(tmp_path):
    pytest.importorskip("mkdocs", reason="no mkdocs; pip install .[docs]")
    built = subprocess.run(
        [shutil.which("mkdocs") or "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "reference" / "cli" / "index.html").is_file()
