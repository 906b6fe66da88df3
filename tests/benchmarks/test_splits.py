"""Data sets that benchmarks render once."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import splits


def test_an_interrupted_data_set_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "read_places", lambda folder: sorted(path.name for path in folder.iterdir()))
    written = []

    def write(folder: Path) -> None:
        folder.mkdir()
        written.append(folder)
        (folder / f"image-{len(written)}").touch()
        if len(written) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        splits.written_once(tmp_path / "town", write)
    assert not (tmp_path / "town").exists()
    assert splits.written_once(tmp_path / "town", write) == splits.written_once(tmp_path / "town", write) == ["image-2"]
    assert len(written) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["town"]
