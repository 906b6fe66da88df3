"""Errors of the system and of the locale at the entry point, and details of errors."""

import logging

import pytest

from vpr_dhe.errors import BadInputError


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (BadInputError("two\nlines"), 2, "error: two lines\n"),
        (
            ModuleNotFoundError("No module named 'scipy'", name="scipy"),
            1,
            "error: the package scipy is not installed, and this command needs it; run `pip install vpr-dhe` again "
            "without --no-deps\n",
        ),
        (
            UnicodeEncodeError("ascii", "Stra\xdfe.jpg", 4, 5, "ordinal not in range"),
            1,
            "error: Stra\\xdfe.jpg has characters that ascii, the encoding of this locale, cannot encode; set "
            "LC_ALL=C.UTF-8\n",
        ),
        (
            OSError(28, "No space left on device", "index/rows.bin"),
            1,
            "error: [Errno 28] No space left on device: 'index/rows.bin'\n",
        ),
    ],
)
def test_errors_become_one_line_and_an_exit_code(run, monkeypatch, raised, code, line):
    def app() -> None:
        raise raised

    monkeypatch.setattr("vpr_dhe.cli.app.app", app)
    assert run() == (code, "", line)


def test_details_of_errors_are_for_those_who_ask(run, tmp_path):
    logger = logging.getLogger("vpr_dhe")
    level = logger.level
    try:
        assert "Traceback" not in run("check", tmp_path / "none")[2]
        assert "Traceback" in run("-vv", "check", tmp_path / "none")[2]
    finally:
        logger.setLevel(level)
