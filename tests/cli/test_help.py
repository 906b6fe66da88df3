"""Help of every command: short, complete and in words."""

import re
from pathlib import Path
from typing import Literal

import pytest
from typer.main import get_command

from vpr_dhe import __version__
from vpr_dhe.cli.app import app
from vpr_dhe.cli.shared.help import metavar_of


def commands() -> list[tuple[str, ...]]:
    """All commands, with the stages of training."""
    program = get_command(app)
    stages = program.commands["train"].commands
    return [(), *((name,) for name in program.commands), *(("train", stage) for stage in stages)]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_examples_and_both_spellings_of_help(run, command):
    code, short, _ = run(*command, "-h")
    assert (code, run(*command, "--help")[1]) == (0, short)
    examples = short.split("Examples:\n")[1].strip().splitlines()
    assert examples
    for example in examples:
        assert re.search(rf"\bvpr-dhe {' '.join(command)}\b".rstrip(), example)
    if command != ("train",):
        assert all(name in short for name in ("-v, --verbose", "-q, --quiet"))
    # Words for people, not types of Python.
    assert not re.search(r"<(int|str|path|float|list)|x>=|<=x|Path\]", short)


def test_options_stand_in_groups(run):
    shown = run("query", "-h")[1]
    sections = [line[:-1] for line in shown.splitlines() if re.fullmatch(r"\w[\w ]+:", line)]
    assert sections == [
        "Arguments",
        "Options",
        "Recording",
        "Verification",
        "Model",
        "Rough position",
        "Output",
        "Sequence",
        "Help and messages",
        "Examples",
    ]
    assert shown.index("Recording:") < shown.index("--bag FILE") < shown.index("Verification:")


@pytest.mark.parametrize(
    ("name", "hint", "metavar"),
    [
        ("top_k", int, "N"),
        ("radius_m", float | None, "METRES"),
        ("max_speed_m_s", float | None, "METRES_PER_SECOND"),
        ("timeout_s", float, "SECONDS"),
        ("share", float, "NUMBER"),
        ("out", Path | None, "FILE"),
        ("weights", list[Path] | None, "FILE"),
        ("model", str | None, "NAME"),
        ("device", Literal["auto", "cpu"], "auto|cpu"),
        ("sequence", bool, None),
    ],
)
def test_values_are_named_by_what_they_are(name, hint, metavar):
    assert metavar_of(name, hint) == metavar


def test_the_version_is_printed(run):
    assert run("--version") == (0, f"vpr-dhe {__version__}\n", "")


def test_shells_can_complete(run):
    shown = run("-h")[1]
    assert "--install-completion" in shown
    assert "--show-completion" in shown


def test_messages_can_be_silenced_and_details_asked_for(run, tmp_path, photo_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (photo_folder / "words.txt.png").write_text("these are words")
    index = ("index", photo_folder, "--out", tmp_path / "index")
    code, said, stderr = run(*index, "-q")
    assert (code, stderr) == (0, "")
    assert "12 images" in said
    # The same before the command.
    assert run("-q", *index)[2] == ""
    assert "skipped words.txt.png" in run(*index)[2]
    ask = ("query", tmp_path / "index", photo_folder / "03.png")
    code, said, stderr = run(*ask, "-v")
    assert code == 0
    assert all(words in stderr for words in ("12 images", "calibration: default", "device cpu", "done in"))
    assert run(*ask)[1] == said
    assert "done in" not in run(*ask)[2]
    code, _, stderr = run("check", tmp_path / "none", "-q")
    assert (code, stderr.startswith("error: ")) == (2, True)


def test_a_picture_is_no_text(run, tmp_path, photo_folder):
    both = (photo_folder / "03.png", photo_folder / "03.png")
    code, _, stderr = run("align", *both, "--out", tmp_path / "overlay.png")
    assert (code, "--out writes text" in stderr, (tmp_path / "overlay.png").exists()) == (2, True, False)


@pytest.mark.slow
def test_the_ending_of_the_file_is_the_format(run, tmp_path, photo_folder):
    run("index", photo_folder, "--out", tmp_path / "index")
    ask = ("query", tmp_path / "index", photo_folder / "03.png", "--rerank", 3)
    for name, start in (
        ("a.json", '{\n  "index"'),
        ("a.jsonl", '{"query"'),
        ("a.csv", "query,rank"),
        ("a.txt", str(photo_folder / "03.png")),
    ):
        assert run(*ask, "--out", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_text().startswith(start)
    # What was asked for goes before it.
    run(*ask, "--out", tmp_path / "b.json", "--format", "csv")
    assert (tmp_path / "b.json").read_text().startswith("query,rank")
    for command, key in (("check", '{"images"'), ("adapt", "{")):
        code, said, _ = run(command, tmp_path / "index", "--out", tmp_path / f"{command}.json")
        assert (code, said) == (0, "")
        assert (tmp_path / f"{command}.json").read_text().startswith(key)
    both = (photo_folder / "03.png", photo_folder / "03.png")
    code, said, _ = run("align", *both, "--model", "lite-vlad", "--out", tmp_path / "align.json")
    assert (code, said, (tmp_path / "align.json").read_text()[:10]) == (0, "", '{"method":')


def test_old_spellings_still_work(run):
    for command, options in (
        ("demo", ("--queries", "--queries-limit")),
        ("evaluate-pairs", ("--queries-limit", "--pairs-limit")),
    ):
        for option in options:
            code, _, stderr = run(command, "x", option, "none")
            assert (code, "No such option" in stderr) == (2, False)


def test_loops_explains_what_it_ignores(run):
    shown = " ".join(run("loops", "-h")[1].split())
    assert "they show the place that the camera is still at" in shown
    assert "[30, with times]" in shown
