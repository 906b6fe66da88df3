"""Search over vectors: exact search is exact to the digit, and every index type keeps its promise of recall."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_codes import codes_of

from vpr_dhe.errors import BadInputError, IndexDamagedError, MissingExtraError
from vpr_dhe.index.vectors import (
    BINARY_CODES,
    FLAT,
    INDEX_TYPES,
    ApproximateIndex,
    Neighbours,
    Queries,
    Stack,
    VectorFileInfo,
    build_vector_file,
    choose_type,
    merge,
    similarities,
)
from vpr_dhe.index.vectors import exact_search as search_exactly
from vpr_dhe.index.vectors.exact import may_be_near

# What a file promises is tuned and measured as for users.
pytestmark = pytest.mark.usefixtures("usual_measurements")

COUNT, DIMENSION = 2000, 32
KINDS = pytest.mark.parametrize("kind", INDEX_TYPES)
NORMS = pytest.mark.parametrize("unit_norm", [True, False])


def q(vectors: np.ndarray) -> Queries:
    return Queries.extracted(vectors, codes_of(vectors))


def build(path: Path, kind: str, vectors: np.ndarray) -> VectorFileInfo:
    return build_vector_file(path, kind, Stack([vectors]), unit_norm=True, codes=Stack([codes_of(vectors)]))


def exact_search(vectors: np.ndarray, queries: np.ndarray, count: int, **options) -> Neighbours:
    return search_exactly(vectors, q(queries), count, **options)


def clustered(count: int, seed: int, *, unit_norm: bool = True) -> np.ndarray:
    """Some twenty views of each of a number of places."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((COUNT // 20, DIMENSION))
    views = centres[rng.integers(0, len(centres), count)] + 0.4 * rng.standard_normal((count, DIMENSION))
    return (views / (np.linalg.norm(views, axis=1, keepdims=True) if unit_norm else 4)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each type over the same vectors, in three arrays of which two are mapped, made when asked for."""
    folder, made = tmp_path_factory.mktemp("faiss"), {}

    def file(kind: str, *, unit_norm: bool) -> tuple[Path, VectorFileInfo, np.ndarray]:
        key = (kind, unit_norm)
        if key not in made:
            vectors = clustered(COUNT, 1, unit_norm=unit_norm)
            path = folder / f"{kind}-{unit_norm}"
            parts = mapped(folder / f"{unit_norm}.f32", vectors)
            codes = Stack([codes_of(part) for part in parts])
            made[key] = (path, build_vector_file(path, kind, Stack(parts), unit_norm=unit_norm, codes=codes), vectors)
        return made[key]

    return file


def mapped(path: Path, vectors: np.ndarray) -> list[np.ndarray]:
    vectors.tofile(path)
    stored = np.memmap(path, np.float32, "r", shape=vectors.shape)
    return [stored[:700], vectors[700:701], stored[701:]]


def opened(file, unit_norm: bool = True) -> tuple[ApproximateIndex, np.ndarray]:
    path, info, vectors = file
    return ApproximateIndex.open(path, info, unit_norm=unit_norm), vectors


def brute_force(vectors: np.ndarray, queries: np.ndarray, *, unit_norm: bool) -> np.ndarray:
    left, right = queries.astype(float), vectors.astype(float)
    if unit_norm:
        return left @ right.T
    return 1 - ((left[:, None] - right[None]) ** 2).sum(axis=2) / 2


def assert_equal(found: Neighbours, expected: Neighbours) -> None:
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


@NORMS
def test_exact_search_finds_the_nearest(unit_norm):
    vectors, queries = (clustered(count, count, unit_norm=unit_norm) for count in (9000, 70))
    found = exact_search(vectors, queries, 30, unit_norm=unit_norm)
    truth = brute_force(vectors, queries, unit_norm=unit_norm)
    np.testing.assert_allclose(found.similarities, -np.sort(-truth, axis=1)[:, :30], atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(truth, found.rows, axis=1), found.similarities, atol=2e-6)


@NORMS
@pytest.mark.parametrize("dimension", [3, 32, 384, 385])
def test_the_digits_of_a_pair_do_not_depend_on_what_else_is_searched(unit_norm, dimension):
    rng = np.random.default_rng(dimension)
    vectors, queries = (rng.standard_normal((count, dimension), np.float32) for count in (5000, 100))
    whole = similarities(queries, vectors, unit_norm=unit_norm)
    for count in (1, 19, 20, 21):
        np.testing.assert_array_equal(similarities(queries[:count], vectors, unit_norm=unit_norm), whole[:count])
    for some in (slice(0, 1), slice(7, 12), slice(1, 4900, 3)):
        np.testing.assert_array_equal(similarities(queries, vectors[some], unit_norm=unit_norm), whole[:, some])
    together = exact_search(vectors, queries, 10, unit_norm=unit_norm)
    np.testing.assert_array_equal(np.take_along_axis(whole, together.rows, axis=1), together.similarities)
    for query in range(0, 100, 9):
        alone = exact_search(vectors, queries[query : query + 1], 10, unit_norm=unit_norm)
        np.testing.assert_array_equal(alone.rows[0], together.rows[query])
        np.testing.assert_array_equal(alone.similarities[0], together.similarities[query])


def test_exact_search_reads_a_mapped_file_and_leaves_out_the_dead(tmp_path):
    vectors, queries = clustered(9000, 3), clustered(4, 4)
    vectors.tofile(tmp_path / "vectors.f32")
    stored = np.memmap(tmp_path / "vectors.f32", "<f4", "r", shape=vectors.shape)
    everything = exact_search(vectors, queries, 9000, unit_norm=True)
    assert_equal(exact_search(stored, queries, 9000, unit_norm=True), everything)
    dead = np.random.default_rng(0).random(9000) < 0.7
    found = exact_search(stored, queries, 9000, unit_norm=True, dead=dead)
    for query in range(4):
        np.testing.assert_array_equal(found.rows[query], everything.rows[query][~dead[everything.rows[query]]])


@pytest.mark.parametrize("count", [0, 1, 7])
def test_exact_search_finds_no_more_than_there_is(count):
    vectors, queries = clustered(5, 3), clustered(2, 4)
    assert exact_search(vectors, queries, count, unit_norm=True).rows.shape == (2, min(count, 5))
    assert exact_search(vectors[:0], queries, count, unit_norm=True).rows.shape == (2, 0)
    assert exact_search(vectors, queries[:0], count, unit_norm=True).rows.shape[0] == 0
    assert exact_search(vectors, queries, count, unit_norm=True, dead=np.ones(5, bool)).rows.shape == (2, 0)


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    cuts=st.sets(st.integers(0, 40), max_size=4),
    count=st.integers(1, 45),
)
def test_a_search_in_parts_equals_one_search_with_ties_in_the_order_of_rows(values, cuts, count):
    vectors = np.array(values, np.float32)[:, None]
    query = np.ones((1, 1), np.float32)
    order = sorted(range(len(values)), key=lambda row: (-values[row], row))[:count]
    assert exact_search(vectors, query, count, unit_norm=True).rows[0].tolist() == order
    edges = [0, *sorted(cut for cut in cuts if cut < len(values)), len(values)]
    parts = []
    for start, stop in pairwise(edges):
        found = exact_search(vectors[start:stop], query, count, unit_norm=True)
        parts.append(Neighbours(found.rows + start, found.similarities))
    assert merge(parts, count).rows[0].tolist() == order


@pytest.mark.parametrize("size", [1024, 1025, 3000])
def test_ties_among_many_rows_are_in_the_order_of_rows(size):
    values = np.random.default_rng(size).integers(-3, 4, size)
    found = exact_search(values.astype(np.float32)[:, None], np.ones((1, 1), np.float32), 700, unit_norm=True)
    assert found.rows[0].tolist() == sorted(range(size), key=lambda row: (-values[row], row))[:700]


@NORMS
@pytest.mark.parametrize("dimension", [3, 384, 2048])
def test_no_pair_among_the_nearest_is_left_out_where_rounding_decides(unit_norm, dimension):
    rng = np.random.default_rng(dimension)
    centre = 3 * rng.standard_normal(dimension)
    vectors, queries = ((centre + 1e-6 * rng.standard_normal((n, dimension))).astype(np.float32) for n in (1000, 20))
    whole, unknown = similarities(queries, vectors, unit_norm=unit_norm), np.full(20, -np.inf, np.float32)
    assert len(np.unique(whole)) < whole.size  # many ties in single precision
    tenth, half = (np.sort(values, axis=1)[:, -10] for values in (whole, whole[:, :500]))
    assert may_be_near(vectors, queries, 10, unknown, unit_norm=unit_norm)[whole >= tenth[:, None]].all()
    rest = may_be_near(vectors[500:], queries, 10, half, unit_norm=unit_norm)
    assert rest[whole[:, 500:] >= half[:, None]].all()


@NORMS
def test_few_pairs_are_kept_beyond_the_nearest(unit_norm):
    vectors, queries = clustered(2000, 1, unit_norm=unit_norm), clustered(30, 2, unit_norm=unit_norm)
    unknown = np.full(30, -np.inf, np.float32)
    kept = may_be_near(vectors, queries, 100, unknown, unit_norm=unit_norm).sum(axis=1)
    assert (kept >= 100).all()
    assert (kept <= 103).all()
    assert may_be_near(vectors[:50], queries, 100, unknown, unit_norm=unit_norm).all()


@KINDS
@NORMS
def test_every_type_finds_what_it_promises_with_the_digits_of_exact_search(files, kind, unit_norm):
    file = files(kind, unit_norm=unit_norm)
    index, vectors = opened(file, unit_norm)
    assert file[1].recall_at_100 >= 0.95
    assert file[1].recall_at_1 >= 0.95
    queries = clustered(200, 2, unit_norm=unit_norm)
    found = index.search(q(queries), 100, vectors.__getitem__)
    truth = exact_search(vectors, queries, 100, unit_norm=unit_norm)
    assert (found.similarities >= truth.similarities[:, -1:]).mean() >= 0.93
    whole = similarities(queries, vectors, unit_norm=unit_norm)
    np.testing.assert_array_equal(np.take_along_axis(whole, found.rows, axis=1), found.similarities)
    assert (np.diff(found.similarities, axis=1) <= 0).all()


@KINDS
def test_an_answer_does_not_depend_on_the_queries_beside_it(files, kind):
    index, vectors = opened(files(kind, unit_norm=True))
    queries = clustered(50, 5)
    together = index.search(q(queries), 20, vectors.__getitem__)
    for query in range(0, 50, 7):
        alone = index.search(q(queries[query : query + 1]), 20, vectors.__getitem__)
        np.testing.assert_array_equal(alone.rows[0], together.rows[query])
        np.testing.assert_array_equal(alone.similarities[0], together.similarities[query])


@KINDS
@pytest.mark.parametrize("removed", [0.2, 0.9, 0.999])
def test_the_dead_are_never_found_and_the_living_fill_their_places(files, kind, removed):
    index, vectors = opened(files(kind, unit_norm=True))
    queries = clustered(10, 6)
    dead = np.random.default_rng(0).random(COUNT) < removed
    dead[exact_search(vectors, queries, 100, unit_norm=True).rows.ravel()] = True  # all that would be found
    found = index.search(q(queries), 100, vectors.__getitem__, dead)
    assert not dead[found.rows].any()
    assert found.rows.shape == (10, min(100, int((~dead).sum())))
    assert all(len(set(rows)) == len(rows) for rows in found.rows.tolist())
    assert index.search(q(queries), 100, vectors.__getitem__, np.ones(COUNT, bool)).rows.shape == (
        10,
        0,
    )


@KINDS
def test_asking_for_everything_finds_everything(files, kind):
    index, vectors = opened(files(kind, unit_norm=True))
    queries = clustered(3, 7)
    assert_equal(
        index.search(q(queries), COUNT + 5, vectors.__getitem__),
        exact_search(vectors, queries, COUNT, unit_norm=True),
    )
    assert index.search(q(queries[:0]), 10, vectors.__getitem__).rows.shape[0] == 0


@KINDS
def test_candidates_are_read_in_ascending_order(files, kind):
    index, vectors = opened(files(kind, unit_norm=True))

    def rows_of(rows):
        assert (np.diff(rows) > 0).all()
        return vectors[rows]

    index.search(q(clustered(5, 8)), 10, rows_of)


@KINDS
def test_the_same_vectors_give_the_same_file(files, kind, tmp_path):
    path, info, vectors = files(kind, unit_norm=True)
    again = build(tmp_path / "again", kind, vectors)
    assert again == info
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert info.bytes == path.stat().st_size


@KINDS
@pytest.mark.parametrize("count", [1, 50, 120])
def test_a_few_vectors_are_searched_exactly(kind, count, tmp_path, capfd):
    vectors, queries = clustered(count, 9), clustered(5, 10)
    info = build(tmp_path / "few", kind, vectors)
    assert (info.count, info.recall_at_100) == (count, 1.0)
    index = ApproximateIndex.open(tmp_path / "few", info, unit_norm=True)
    found = index.search(q(queries), 20, vectors.__getitem__)
    assert_equal(found, exact_search(vectors, queries, 20, unit_norm=True))
    assert capfd.readouterr() == ("", "")


@KINDS
def test_equal_vectors_do_not_get_in_the_way(kind, tmp_path):
    vectors = np.repeat(clustered(4, 11), 150, axis=0)
    info = build(tmp_path / "equal", kind, vectors)
    index = ApproximateIndex.open(tmp_path / "equal", info, unit_norm=True)
    found = index.search(q(vectors[:1]), 100, vectors.__getitem__)
    np.testing.assert_allclose(found.similarities, 1, atol=1e-6)
    assert info.recall_at_100 == 1.0


def test_what_cannot_be_built_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no vectors"):
        build_vector_file(tmp_path / "none", "hnsw", Stack([]), unit_norm=True)
    with pytest.raises(BadInputError, match="use one of flat, hnsw"):
        build_vector_file(tmp_path / "none", "annoy", Stack([clustered(5, 1)]), unit_norm=True)
    with pytest.raises(BadInputError, match="no binary codes"):
        build_vector_file(tmp_path / "none", BINARY_CODES, Stack([clustered(5, 1)]), unit_norm=True)


def test_codes_propose_and_descriptors_order(tmp_path):
    """Codes of all the same bits but for a few rows: those are found, in the order of their descriptors."""
    vectors = clustered(500, 13)
    codes = np.zeros((500, 8), np.uint8)
    near = np.arange(100, 300)
    codes[near] = 255
    info = build_vector_file(
        tmp_path / "codes", BINARY_CODES, Stack([vectors]), unit_norm=True, codes=Stack([codes[:200], codes[200:]])
    )
    few = replace(info, parameters=info.parameters | {"candidates": 200})
    index = ApproximateIndex.open(tmp_path / "codes", few, unit_norm=True)
    found = index.search(Queries.extracted(vectors[:1], codes[100:101]), 100, vectors.__getitem__)
    order = near[np.argsort(-brute_force(vectors[near], vectors[:1], unit_norm=True)[0], kind="stable")]
    np.testing.assert_array_equal(found.rows[0], order[:100])


def test_a_search_by_codes_needs_the_code_of_the_query(files):
    index, vectors = opened(files(BINARY_CODES, unit_norm=True))
    with pytest.raises(BadInputError, match="the query has none; pass the code"):
        index.search(Queries.extracted(vectors[:1]), 10, vectors.__getitem__)
    few = index.search(Queries.extracted(vectors[:1]), 10, vectors.__getitem__, among=np.arange(20))
    assert few.rows.shape == (1, 10)


def test_a_file_that_is_not_what_the_manifest_says_is_refused(files, tmp_path):
    path, info, _ = files("ivf-sq8", unit_norm=True)
    (tmp_path / "short").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IndexDamagedError, match="cannot be read"):
        ApproximateIndex.open(tmp_path / "short", info, unit_norm=True)
    other = VectorFileInfo(info.kind, COUNT + 1, info.parameters, 1.0, 1.0, info.bytes)
    with pytest.raises(IndexDamagedError, match="2000 vectors instead of 2001"):
        ApproximateIndex.open(path, other, unit_norm=True)


@pytest.mark.parametrize("kind", ["hnsw", "rabitq"])
def test_a_type_that_a_gpu_cannot_hold_says_so(files, kind):
    path, info, _ = files(kind, unit_norm=True)
    with pytest.raises(BadInputError, match="cannot be searched on a GPU; use one of flat, ivf-flat, ivf-sq8"):
        ApproximateIndex.open(path, info, unit_norm=True, gpu=True)


def test_a_missing_gpu_is_named(files):
    import faiss

    if faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    path, info, _ = files("ivf-sq8", unit_norm=True)
    with pytest.raises(MissingExtraError, match="faiss-gpu-cu12"):
        ApproximateIndex.open(path, info, unit_norm=True, gpu=True)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [kind for kind, type in INDEX_TYPES.items() if type.on_gpu])
def test_a_gpu_finds_what_the_cpu_finds(files, kind):
    import faiss

    if not faiss.get_num_gpus():
        pytest.skip("FAISS finds no GPU")
    path, info, vectors = files(kind, unit_norm=True)
    index = ApproximateIndex.open(path, info, unit_norm=True, gpu=True)
    queries = clustered(50, 12)
    expected = ApproximateIndex.open(path, info, unit_norm=True).search(q(queries), 50, vectors.__getitem__)
    assert (index.search(q(queries), 50, vectors.__getitem__).rows == expected.rows).mean() > 0.99
    assert_equal(
        index.search(q(queries[:2]), COUNT, vectors.__getitem__),
        exact_search(vectors, queries[:2], COUNT, unit_norm=True),
    )


def test_the_type_follows_the_size_of_the_map():
    assert [choose_type(count) for count in (0, 99_999, 100_000, 10_000_000)] == [FLAT, FLAT, "hnsw", "rabitq"]


def test_a_faiss_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    """FAISS has errors of its own, as of a full disk."""
    vectors = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    with pytest.raises(OSError, match="cannot be written"):
        build_vector_file(tmp_path / "missing" / "file", "hnsw", Stack([vectors]), unit_norm=True)
