"""An evaluation against one written out from the protocols' text, which shares nothing with it but the descriptors."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import Settings, evaluate_dataset
from vpr_dhe.evaluation.recall import Denominator
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Preprocessing, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

RANKS = (1, 2, 5, 10)


def run(root: Path, extractor, cache: Path, *, protocol=None, settings=None, verifiers=(), batch_size=8, dataset=None):
    dataset = dataset or read_places(root, protocol=protocol)
    index = FeatureCache(cache).index(dataset.database, extractor, batch_size=batch_size)
    queries = FeatureCache(cache).queries(dataset.queries, extractor, batch_size=batch_size)
    built = {name: Verifier(build_estimator(name)) for name in verifiers}
    return evaluate_dataset(dataset, index, extractor, built, settings or Settings(RANKS, rerank=10), queries=queries)


def unit(extractor, path: Path) -> np.ndarray:
    vector = extractor.extract([decode_image(path)])[0].global_descriptor.double().numpy()
    return vector / np.linalg.norm(vector)


def recall_from_the_text(extractor, database: list[Path], queries: list[Path], is_right) -> dict[int, float]:
    """Sort the database by cosine; a query is right at N if one of the first N images is; percent of all queries."""
    known = np.stack([unit(extractor, path) for path in database])
    right_at = dict.fromkeys(RANKS, 0)
    for query in queries:
        cosines = known @ unit(extractor, query)
        order = sorted(range(len(database)), key=(-cosines).__getitem__)
        for rank in RANKS:
            right_at[rank] += any(is_right(query, database[row]) for row in order[:rank])
    return {rank: 100.0 * count / len(queries) for rank, count in right_at.items()}


def within(radius_m: float):
    def is_right(query: Path, image: Path) -> bool:
        here, there = (tuple(float(part) for part in path.name.split("@")[1:3]) for path in (query, image))
        return math.dist(here, there) <= radius_m

    return is_right


def images_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("radius_m", [25.0, 8.0])
def test_recall_within_a_radius_is_that_of_the_protocol(place_tree, thumbnail_extractor, tmp_path, radius_m):
    root = place_tree(queries=24, difficulty=400.0)
    result = run(root, thumbnail_extractor, tmp_path / "cache", protocol=Protocol(radius_m=radius_m))
    folders = (images_of(root / "images/test/database"), images_of(root / "images/test/queries"))
    expected = recall_from_the_text(thumbnail_extractor, *folders, within(radius_m))
    assert result.retrieval.scores.recall == expected
    assert expected[1] < expected[10]


@pytest.mark.parametrize("tolerance", [0, 1, 10])
def test_recall_by_frame_is_that_of_the_protocol(place_tree, thumbnail_extractor, tmp_path, tolerance):
    # Frame 10 sorts before frame 9 as text; the numbers are what counts.
    root = place_tree(("database", "queries"), lambda number, *_: f"{number}.jpg", queries=24, difficulty=600.0)
    protocol = Protocol(frame_tolerance=tolerance)
    result = run(root, thumbnail_extractor, tmp_path / "cache", protocol=protocol)

    def is_right(query: Path, image: Path) -> bool:
        return abs(int(query.stem) - int(image.stem)) <= tolerance

    folders = (images_of(root / "database"), images_of(root / "queries"))
    assert result.retrieval.scores.recall == recall_from_the_text(thumbnail_extractor, *folders, is_right)


@pytest.mark.slow
def test_nothing_depends_on_batches_or_on_the_order_of_queries(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree(difficulty=300.0)
    dataset = read_places(root)
    order = np.random.default_rng(1).permutation(len(dataset.queries.records)).tolist()
    shuffled = replace(
        dataset,
        queries=replace(dataset.queries, records=tuple(dataset.queries.records[row] for row in order)),
        positives=tuple(dataset.positives[row] for row in order),
    )
    one = run(root, thumbnail_extractor, tmp_path / "one", batch_size=1, verifiers=["magsac", "poselib"])
    all_at_once = run(
        root, thumbnail_extractor, tmp_path / "two", batch_size=24, verifiers=["magsac", "poselib"], dataset=shuffled
    )
    assert max(thumbnail_extractor.batches) == 24
    for method, other in zip(one.methods, all_at_once.methods, strict=True):
        assert other.predictions == tuple(method.predictions[row] for row in order)
        assert other.scores.recall == method.scores.recall


def test_verifiers_are_measured_side_by_side_as_if_alone(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree(difficulty=300.0)
    together = run(root, thumbnail_extractor, tmp_path / "cache", verifiers=["magsac", "ransac"])
    alone = run(root, thumbnail_extractor, tmp_path / "cache", verifiers=["ransac"])
    assert [method.name for method in together.methods] == ["retrieval", "magsac", "ransac"]
    assert together.verifiers[1].predictions == alone.verifiers[0].predictions
    assert together.retrieval.predictions == alone.retrieval.predictions


def test_features_of_a_database_are_extracted_once(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree()
    first = run(root, thumbnail_extractor, tmp_path / "cache")
    extracted = sum(thumbnail_extractor.batches)
    again = run(root, thumbnail_extractor, tmp_path / "cache", protocol=Protocol(radius_m=30.0))
    # One by one, for the time of extraction.
    assert sum(thumbnail_extractor.batches) - extracted == len(again.dataset.queries.records)
    assert again.retrieval.predictions == first.retrieval.predictions
    changed = images_of(root / "images/test/database")[3]
    changed.write_bytes(images_of(root / "images/test/database")[4].read_bytes())
    images_of(root / "images/test/database")[0].unlink()
    fewer = run(root, thumbnail_extractor, tmp_path / "cache")
    assert len(fewer.dataset.database.records) == 23
    assert max(one.row for best in fewer.retrieval.predictions for one in best) < 23


def test_a_file_with_another_content_is_seen_whatever_its_time_and_size(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree(name=lambda number, east, north: f"@{east:.2f}@{north:.2f}@31@U@.bmp")
    one, other = images_of(root / "images/test/database")[:2]
    before = run(root, thumbnail_extractor, tmp_path / "cache")
    contents, status = (one.read_bytes(), other.read_bytes()), one.stat()
    for path, content in ((one, contents[1]), (other, contents[0])):
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    warm, cold = (run(root, thumbnail_extractor, tmp_path / cache) for cache in ("cache", "another"))
    assert warm.retrieval.predictions == cold.retrieval.predictions != before.retrieval.predictions


def test_images_that_are_gone_or_damaged_are_no_longer_found(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree()
    names = [path.name for path in images_of(root / "images/test/database")]
    (root / "images/test/database_images_paths.txt").write_text("\n".join(names))
    run(root, thumbnail_extractor, tmp_path / "cache")
    (root / "images/test/database" / names[5]).write_bytes(b"no image")
    (root / "images/test/database" / names[9]).unlink()
    result = run(root, thumbnail_extractor, tmp_path / "cache")
    assert [image.path for image in result.unreadable_database] == [names[5], names[9]]
    assert {one.row for best in result.retrieval.predictions for one in best}.isdisjoint({5, 9})
    for path in images_of(root / "images/test/database"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="none of the 24 database images"):
        run(root, thumbnail_extractor, tmp_path / "cache")


def test_images_of_equal_similarity_stay_in_the_order_of_the_database(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree()
    paths = images_of(root / "images/test/database")
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    result = run(root, thumbnail_extractor, tmp_path / "cache")
    assert all([one.row for one in best] == list(range(10)) for best in result.retrieval.predictions)


@pytest.mark.slow
def test_a_network_answers_the_same_in_any_batch(place_tree, tmp_path):
    torch.manual_seed(0)
    parts = {
        "backbone": build_backbone("cct_14_7x2_384", blocks=2, input_size=Size(96, 96)),
        "aggregator": build_aggregator("gem-unit-cells", 384),
    }
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    preprocessing = Preprocessing(96, 96, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    architecture = Architecture("cct_14_7x2_384", "gem-unit-cells", 2)
    ModelFile("random", architecture, preprocessing, "none", "none", state).save(tmp_path / "m.safetensors")
    extractor = load_extractor(str(tmp_path / "m.safetensors"))
    root = place_tree(difficulty=300.0)
    runs = [
        run(root, extractor, tmp_path / f"cache{size}", batch_size=size, verifiers=["magsac"]) for size in (1, 5, 24)
    ]
    for methods in zip(*(one.methods for one in runs), strict=True):
        rows = [[[one.row for one in best] for best in method.predictions] for method in methods]
        assert rows[0] == rows[1] == rows[2]


def test_one_prediction_for_each_panorama(place_tree, thumbnail_extractor, tmp_path):
    def name(number: int, east: float, north: float) -> str:
        return f"@{500_000 + number // 4 * 100:.2f}@{500_000:.2f}@54@S@@@pano{number // 4}@{number % 4:02d}@@@@@@@.jpg"

    root = place_tree(name=name)
    settings = Settings((1, 3, 6), rerank=8, one_per_panorama=True)
    result = run(root, thumbnail_extractor, tmp_path / "cache", settings=settings, verifiers=["magsac"])
    for method in result.methods:
        for best in method.predictions:
            panoramas = [prediction.row // 4 for prediction in best]
            assert len(panoramas) == len(set(panoramas)) == 6
    every = Settings((24,), rerank=8)
    usual = run(root, thumbnail_extractor, tmp_path / "cache", settings=every, verifiers=["magsac"])
    for method, unlimited in zip(result.methods, usual.methods, strict=True):
        for best, everything in zip(method.predictions, unlimited.predictions, strict=True):
            kept = {}
            for prediction in everything:
                kept.setdefault(prediction.row // 4, prediction)
            assert list(kept.values()) == list(best)


def test_panoramas_must_be_known(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree(("database", "queries"), lambda number, *_: f"{number:02d}.jpg")
    with pytest.raises(BadInputError, match="leave out --one-per-panorama"):
        run(root, thumbnail_extractor, tmp_path / "cache", settings=Settings(one_per_panorama=True))


def test_queries_without_a_positive_count_or_not(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree()
    far = root / "images/test/queries/@900000.00@900000.00@31@U@@@far@@@@@@@@.jpg"
    far.write_bytes(images_of(root / "images/test/queries")[0].read_bytes())
    every = run(root, thumbnail_extractor, tmp_path / "cache")
    settings = Settings(RANKS, denominator=Denominator.with_positive)
    answerable = run(root, thumbnail_extractor, tmp_path / "cache", settings=settings)
    assert every.num_queries_with_positive < 13
    for rank in RANKS:
        hits = every.retrieval.scores.recall[rank] * 13
        assert answerable.retrieval.scores.recall[rank] * every.num_queries_with_positive == pytest.approx(hits)


def test_a_query_that_cannot_be_read_is_missed_and_named(place_tree, thumbnail_extractor, tmp_path):
    root = place_tree()
    images_of(root / "images/test/queries")[2].write_bytes(b"no image")
    result = run(root, thumbnail_extractor, tmp_path / "cache", verifiers=["magsac"])
    assert [image.path for image in result.unreadable_queries] == [images_of(root / "images/test/queries")[2].name]
    assert all(method.predictions[2] == () for method in result.methods)
    for path in images_of(root / "images/test/queries"):
        path.write_bytes(b"no image")
    with pytest.raises(BadInputError, match="none of the 12 queries could be read"):
        run(root, thumbnail_extractor, tmp_path / "cache")


def test_a_quick_look_spreads_over_the_queries(place_tree):
    dataset = read_places(place_tree())
    few = dataset.limited(4)
    assert [record.path for record in few.queries.records] == [
        dataset.queries.records[row].path for row in (0, 3, 6, 9)
    ]
    assert "only 4 of 12 queries" in few.protocol
    assert dataset.limited(100) is dataset
