"""Tables of segments: lookup of rows by the digests of paths."""

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.index.rows import ROW, Digest, PathTable, path_digest, path_digests

# Few values, so that halves of digests are often equal.
digests = st.builds(Digest, st.sampled_from([0, 1, 2**64 - 1]), st.integers(0, 3))


@given(st.lists(digests, max_size=30), digests)
def test_images_at_a_path_are_those_whose_digests_are_equal(stored, wanted):
    table = np.zeros(len(stored), ROW)
    table["id"] = np.arange(len(stored))
    table["path_high"], table["path_low"] = ([digest[half] for digest in stored] for half in (0, 1))

    found = sorted(PathTable([table[:4], table[4:]]).ids_of(wanted))

    assert found == [id for id, digest in enumerate(stored) if digest == wanted]


@given(st.lists(digests, max_size=30), st.lists(digests, max_size=10))
def test_many_paths_are_found_as_one_by_one(stored, wanted):
    table = np.zeros(len(stored), ROW)
    table["id"] = np.arange(len(stored))
    table["path_high"], table["path_low"] = ([digest[half] for digest in stored] for half in (0, 1))
    paths = PathTable([table[:4], table[4:]])

    found = paths.first_ids_of(np.array(wanted, np.uint64).reshape(-1, 2))

    for id, digest in zip(found.tolist(), wanted, strict=True):
        assert id in list(paths.ids_of(digest)) or (id == -1 and digest not in stored)


def test_digests_of_many_paths_are_those_of_each():
    names = ["a.jpg", "drive/ä.png", os.fsdecode(b"\xff.jpg")]
    assert [tuple(row) for row in path_digests(names).tolist()] == [path_digest(name) for name in names]
    assert path_digests([]).shape == (0, 2)
