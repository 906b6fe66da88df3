"""How the program is run in these tests."""

from collections.abc import Callable

import pytest

from vpr_dhe.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def native_bf16(monkeypatch) -> None:
    """A processor that multiplies bfloat16: on others the program says first that fp32 is faster."""
    monkeypatch.setattr("vpr_dhe.runtime.cpu_features.has_bfloat16_products", lambda _: True)


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """Run the program in this process; returns exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vpr-dhe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return ended.value.code or 0, output.out, output.err

    return call
