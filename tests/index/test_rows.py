"""Tables of segments: lookup of rows by the digests of paths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.index.rows import ROW, Digest, PathTable

# Few values, so that halves of digests are often equal.
digests = st.builds(Digest, st.sampled_from([0, 1, 2**64 - 1]), st.integers(0, 3))


@given(st.lists(digests, max_size=30), digests)
def test_images_at_a_path_are_those_whose_digests_are_equal(stored, wanted):
    table = np.zeros(len(stored), ROW)
    table["id"] = np.arange(len(stored))
    table["path_high"], table["path_low"] = ([digest[half] for digest in stored] for half in (0, 1))

    found = sorted(PathTable([table[:4], table[4:]]).ids_of(wanted))

    assert found == [id for id, digest in enumerate(stored) if digest == wanted]
