"""Binary codes beside descriptors: kept through every way an index is written, searched, and checked."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_codes import BITS, codes_of

from tests.index.adaptation.towns import SPEC_WITH_CODES, add, filled, filled_with, town
from vpr_dhe.errors import BadInputError, IndexDamagedError
from vpr_dhe.index.paths import FILE_NAME
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.segments import CODES
from vpr_dhe.index.vectors import BINARY_CODES
from vpr_dhe.index.vectors.types import PUBLISHED_CANDIDATES

# What a file promises is tuned and measured as for users.
pytestmark = pytest.mark.usefixtures("usual_measurements")

VECTORS, RECORDS = town(30, 6)
QUERIES = torch.from_numpy(town(30, 1)[0])
QUERY_CODES = torch.from_numpy(codes_of(QUERIES.numpy()))
COUNT = len(RECORDS)


def made(folder: Path, part: slice = slice(0, COUNT), **options) -> PlaceIndex:
    return filled_with(SPEC_WITH_CODES, folder, VECTORS[part], RECORDS[part], **options)


def require_codes(index: PlaceIndex, rows: np.ndarray | None = None) -> None:
    """Each image has the code of its descriptor, also after the index is opened anew."""
    for snapshot in (index.snapshot, PlaceIndex.open(index.folder).snapshot):
        codes = snapshot.codes(index.ids)
        assert codes is not None
        np.testing.assert_array_equal(codes.numpy(), codes_of(snapshot.descriptors(index.ids).numpy()))
    assert len(index) == (COUNT if rows is None else len(rows))


def test_codes_are_kept_through_additions_removals_and_compaction(tmp_path):
    index = made(tmp_path / "index", slice(0, 100))
    add(index, VECTORS[100:], RECORDS[100:])
    require_codes(index)
    index.remove([3, 40, 120])
    index.compact()
    assert len(index.manifest.segments) == 1
    require_codes(index, np.arange(COUNT - 3))
    assert index.check().damaged == ()


def test_codes_are_kept_through_a_merge_and_another_codec(tmp_path):
    index, other = made(tmp_path / "one", slice(0, 100)), made(tmp_path / "two", slice(100, COUNT))
    index.merge(other)
    require_codes(index)
    index.compact(codec="int8")
    require_codes(index)


def test_a_search_by_codes_finds_the_images_of_the_place(tmp_path):
    index = made(tmp_path / "index", index_type=BINARY_CODES)
    index.build_vector_files()
    (file,) = index.manifest.vector_files
    assert (file.built.kind, file.built.count) == (BINARY_CODES, COUNT)
    assert file.built.parameters["candidates"] >= PUBLISHED_CANDIDATES
    found = PlaceIndex.open(index.folder).search(QUERIES, 3, codes=QUERY_CODES)
    exact = made(tmp_path / "flat").search(QUERIES, 3)
    assert (found.ids == exact.ids).mean() > 0.95
    with pytest.raises(BadInputError, match="searched by binary codes, and the query has none"):
        index.search(QUERIES, 3)


def test_similarities_of_an_adapted_index_order_what_codes_propose(tmp_path):
    index, flat = (made(tmp_path / kind, index_type=kind) for kind in (BINARY_CODES, "flat"))
    for each in (index, flat):
        each.build_vector_files()
        assert each.adapt().steps
    found, exact = (each.search(QUERIES, 3, codes=QUERY_CODES) for each in (index, flat))
    assert [file.built.kind for file in index.manifest.current_vector_files] == [BINARY_CODES]
    assert (found.ids == exact.ids).mean() > 0.95
    assert found.extracted is not None
    require_codes(index)


def test_models_without_codes_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BadInputError, match=r"'towns' makes none; use a model .* with codes, or rabitq"):
        filled(tmp_path / "index", VECTORS, RECORDS, index_type=BINARY_CODES)
    assert not (tmp_path / "index").exists()
    index = filled(tmp_path / "index", VECTORS, RECORDS)
    with pytest.raises(BadInputError, match="makes none"):
        index.configure(index_type=BINARY_CODES)
    assert index.manifest.settings.index_type == "auto"


def test_only_indexes_with_codes_have_files_and_fields_of_them(tmp_path):
    def facts(folder: Path) -> tuple[dict, set[str]]:
        (segment,) = (folder / "segments").iterdir()
        return json.loads((folder / FILE_NAME).read_text()), {file.name for file in segment.iterdir()}

    filled(tmp_path / "without", VECTORS, RECORDS)
    made(tmp_path / "with")
    manifest, files = facts(tmp_path / "without")
    assert "code_bits" not in manifest["content"]["spec"]
    assert manifest["format"] == "vpr-dhe index 2"
    assert CODES not in files
    manifest, files = facts(tmp_path / "with")
    assert manifest["content"]["spec"]["code_bits"] == BITS
    assert manifest["format"] == "vpr-dhe index 3"
    assert CODES in files


@pytest.mark.parametrize("damage", ["a bit", "the end", "all"])
def test_damaged_codes_are_noticed(tmp_path, damage):
    index = made(tmp_path / "index", index_type=BINARY_CODES)
    (path,) = index.folder.glob(f"segments/*/{CODES}")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content if damage == "a bit" else content[:-1])
    if damage == "all":
        path.unlink()
    with pytest.raises(IndexDamagedError, match=CODES):
        PlaceIndex.open(index.folder).build_vector_files()
    assert len(index.check().damaged) == 1
