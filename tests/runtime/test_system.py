"""Systems that the package does not run on are told in one sentence."""

import sys

import pytest

from vpr_dhe.cli import main
from vpr_dhe.runtime import system


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_refused_in_one_sentence(platform, monkeypatch, capsys):
    monkeypatch.setattr(system.sys, "platform", platform)
    monkeypatch.setattr(sys, "argv", ["vpr-dhe", "models"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: vpr-dhe runs on Linux; use a container on macOS, or WSL 2 on Windows\n"
