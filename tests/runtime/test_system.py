"""Systems that the package does not run on are told in one sentence."""

import sys

import pytest

from vpr_dhe.cli import main
from vpr_dhe.runtime import system


def test_windows_is_refused_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(system.sys, "platform", "win32")
    monkeypatch.setattr(sys, "argv", ["vpr-dhe", "models"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: vpr-dhe runs on Linux and macOS; on Windows, run it in WSL 2\n"
