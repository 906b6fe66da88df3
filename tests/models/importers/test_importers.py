"""Contract of all importers: damaged, missing and malicious files."""

import pytest

from vpr_dhe.cli.import_weights import Kind
from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import FAMILIES, import_checkpoints

pytestmark = pytest.mark.parametrize("family", FAMILIES)


class Malicious:
    def __reduce__(self):
        return pytest.fail, ("code in a checkpoint was executed",)


def test_code_in_a_checkpoint_is_not_executed(saved, family):
    with pytest.raises(ModelError, match="not a readable PyTorch checkpoint"):
        import_checkpoints(family, [saved("malicious", {"encoder": Malicious()})])


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", bytes(range(256)) * 4, b"PK\x03\x04broken", b"\x80\x02."]
)
def test_damaged_files(tmp_path, content, family):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable PyTorch checkpoint") as raised:
        import_checkpoints(family, [path])
    assert "\n" not in str(raised.value)


def test_missing_file(tmp_path, family):
    with pytest.raises(ModelError, match="does not exist"):
        import_checkpoints(family, [tmp_path / "nothing.pth"])


def test_too_many_files(tmp_path, family):
    with pytest.raises(ModelError, match=rf"3 files were given; kind {family} takes \d at most"):
        import_checkpoints(family, [tmp_path / "nothing.pth"] * 3)


def test_the_command_line_offers_it(family):
    assert family in set(Kind)
