"""Reports read as a browser reads them: what is in them, in which order, and nothing from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import Settings, Tools, evaluate_dataset
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition
from vpr_dhe.report.html import evaluation_report as evaluation_reports
from vpr_dhe.report.html.charts import Axis, Curve, line_chart
from vpr_dhe.report.html.evaluation_report import evaluation_report
from vpr_dhe.report.html.match_report import Report, write_report
from vpr_dhe.report.html.position_map import Spot, draw_map
from vpr_dhe.report.html.query_report import query_report
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

HOSTILE = '<img src=x onerror=alert(1)> & "it\'s" {:02d}.png'


class Page(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def require_self_contained(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "data"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:image/jpeg;base64,", "#", "geo:")), address
        assert not any(name.startswith("on") for name in attributes)
    assert not page.all("link")
    [policy] = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def write_images(folder: Path, names: list[str], shown: list[int]) -> None:
    """An image per name; equal numbers give images that differ by a little noise."""
    folder.mkdir(parents=True)
    for place, (name, number) in enumerate(zip(names, shown, strict=True)):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        image = PIL.Image.fromarray(coarse).resize((80, 60), PIL.Image.Resampling.BICUBIC)
        noise = np.random.default_rng(1000 + place).integers(-6, 7, (60, 80, 3))
        PIL.Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(folder / name)


@pytest.fixture
def evaluated(tmp_path, thumbnail_extractor) -> Report:
    """Six queries of frames 0 to 5; two of them show another place, and one is no image."""
    data = tmp_path / "data"
    write_images(data / "database", [HOSTILE.format(number) for number in range(8)], list(range(8)))
    write_images(data / "queries", [HOSTILE.format(number) for number in range(6)], [0, 1, 7, 3, 6, 5])
    (data / "queries" / HOSTILE.format(5)).write_text("no image")
    dataset = read_places(data, protocol=Protocol(frame_tolerance=0))
    index = FeatureCache(tmp_path / "cache").index(dataset.database, thumbnail_extractor, codec="float16")
    verifiers = {"magsac": Verifier(build_estimator("magsac"))}
    result = evaluate_dataset(dataset, index, thumbnail_extractor, verifiers, Settings((1, 4), rerank=4))
    return evaluation_report(result, Tools(index, thumbnail_extractor, verifiers), provenance())


def test_an_evaluation_shows_the_worst_first(evaluated, tmp_path):
    outcomes = [query.outcome for query in evaluated.queries]
    assert outcomes == ["wrong", "wrong", "unread", "right", "right", "right"]
    assert {query.query for query in evaluated.queries[:2]} == {HOSTILE.format(2), HOSTILE.format(4)}
    for query in evaluated.queries[:2]:
        assert [match.right for match in query.matches[:3]] == [False, False, False]
        assert query.matches[-1].right
        assert "right" in query.matches[-1].label
        assert query.matches[0].facts == ("16 inliers",)
    assert "not an image" in evaluated.queries[2].remark
    assert all(query.matches[0].right for query in evaluated.queries[3:])

    write_report(evaluated, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    require_self_contained(page)
    assert [article["data-outcome"] for article in page.all("article")] == outcomes
    pictures = page.all("img")
    assert len(pictures) == sum(len(query.matches) for query in evaluated.queries)
    assert all(HOSTILE[:20] in picture["alt"] for picture in pictures)
    assert page.text.count(HOSTILE.format(2)) > 1
    assert "all 6 queries, most confident mistakes first" in page.text
    assert {radio["value"] for radio in page.all("input") if radio["type"] == "radio"} == {"", *outcomes}
    assert "R@4" in page.text
    assert len(evaluated.charts) == 2
    assert evaluated.map is None


def test_a_report_is_bounded_and_says_so(evaluated, tmp_path, monkeypatch, thumbnail_extractor):
    monkeypatch.setattr(evaluation_reports, "MAX_QUERIES", 2)
    data = read_places(tmp_path / "data", protocol=Protocol(frame_tolerance=0))
    index = FeatureCache(tmp_path / "cache").index(data.database, thumbnail_extractor, codec="float16")
    result = evaluate_dataset(data, index, thumbnail_extractor, {}, Settings((1, 4)))
    report = evaluation_report(result, Tools(index, thumbnail_extractor, {}), provenance())
    assert report.selection == "By retrieval: the 2 worst of 6 queries, most confident mistakes first."
    assert [query.outcome for query in report.queries] == ["wrong", "wrong"]
    assert report.queries[0].matches[0].facts[0].startswith("similarity ")


def test_answers_without_a_truth_begin_with_the_least_certain(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    records = [
        ImageRecord(record.path, GeoPosition(49.2 + 1e-4 * number, 7.0))
        for number, record in enumerate(read_split(photo_folder).records)
    ]
    index.add(records, thumbnail_extractor)
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), thumbnail_extractor)
    write_images(tmp_path / "new", ["unlike.png"], [77])
    asked = [photo_folder / "03.png", tmp_path / "new" / "unlike.png"]
    answers = [Answer(str(path), localizer.localize(path, top_k=2)) for path in asked]
    (photo_folder / "03.png").rename(tmp_path / "moved.png")
    sheet = AnswerSheet("index", "thumbnail", "magsac", (*answers, Answer("broken.jpg", error="not an image")))
    report = query_report(sheet, index)
    assert [query.query for query in report.queries] == ["broken.jpg", str(asked[1]), str(asked[0])]
    assert [query.outcome for query in report.queries] == ["unread", "answered", "unread"]
    assert report.map is not None
    assert report.map.counts == {"database": 12, "answered": 2}
    write_report(report, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    require_self_contained(page)
    links = {anchor["href"] for anchor in page.all("a")} - {"#queries"}
    assert "geo:49.2002000,7.0000000" in links
    assert "latitude 49.2002000, longitude 7.0000000" in page.text
    links = {link for link in links if not link.startswith("geo:")}
    assert links == {"#q1", "#q2"} <= {f"#{article['id']}" for article in page.all("article")}


@pytest.mark.parametrize(
    ("known", "outcome", "words"), [(None, "answered", ""), (True, "answered", ""), (False, "unknown", "improbable")]
)
def test_only_rejected_matches_are_of_unknown_places(
    known, outcome, words, photo_folder, tmp_path, thumbnail_extractor
):
    """Without a minimum probability, `known` is None, and every answer stands."""
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    query = photo_folder / "03.png"
    found = Localizer(VerifiedIndex(index, None), thumbnail_extractor).localize(query, top_k=1)
    best = found.matches[0]
    found = replace(found, known=known, **({"matches": (), "rejected": best} if known is False else {}))
    report = query_report(AnswerSheet("index", "thumbnail", "none", (Answer(str(query), found),)), index)
    [shown] = report.queries
    assert (shown.outcome, bool(shown.remark)) == (outcome, bool(words))
    assert words in shown.remark
    assert [match.label for match in shown.matches] == ["rejected" if known is False else "rank 1"]
    write_report(report, tmp_path / "report.html")
    assert ("unknown" in Page(tmp_path / "report.html").text) == (known is False)


def test_an_image_that_is_gone_is_said_to_be(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    localizer = Localizer(VerifiedIndex(index, None), thumbnail_extractor)
    query = tmp_path / "query\udcff.png"
    query.write_bytes((photo_folder / "03.png").read_bytes())
    answer = Answer(str(query), localizer.localize(query, top_k=1))
    (photo_folder / "03.png").unlink()
    report = query_report(AnswerSheet("index", "thumbnail", "none", (answer,)), index)
    assert report.queries[0].matches[0].fault == "the file does not exist"
    write_report(report, tmp_path / "report.html")
    assert "the file does not exist" in Page(tmp_path / "report.html").text


def test_maps_keep_the_shape_of_the_ground():
    corners = [MetricPosition(x, y, "UTM 32U") for x, y in ((0.0, 0.0), (200.0, 0.0), (200.0, 100.0))]
    spots = [Spot(corner, "right", f"corner {number}") for number, corner in enumerate(corners)]
    drawn = draw_map([*spots, Spot(MetricPosition(0.0, 0.0, "UTM 33U"), "wrong", "elsewhere")])
    assert (drawn.counts, drawn.elsewhere) == ({"right": 3}, 1)
    page = HTMLText(str(drawn.svg))
    (west, south), (east, same), (_, north) = page.circles
    assert south == same
    assert (east - west) / (south - north) == pytest.approx(2, abs=0.01)
    assert "50 m" in page.text
    # A degree of longitude is shorter than one of latitude, by the cosine.
    degrees = [GeoPosition(60.0, 10.0), GeoPosition(60.0, 10.01), GeoPosition(60.01, 10.0)]
    page = HTMLText(str(draw_map([Spot(position, "right", "") for position in degrees]).svg))
    (west, south), (east, _), (_, north) = page.circles
    assert (east - west) / (south - north) == pytest.approx(0.5, abs=0.01)
    assert draw_map([]) is None
    assert draw_map(spots[:1]).counts == {"right": 1}


class HTMLText(HTMLParser):
    """Centres of circles, and text."""

    def __init__(self, svg: str) -> None:
        super().__init__()
        self.circles: list[tuple[float, float]] = []
        self.text = ""
        self.feed(svg)

    def handle_starttag(self, tag, attrs):
        if tag == "circle":
            self.circles.append((float(dict(attrs)["cx"]), float(dict(attrs)["cy"])))

    def handle_data(self, data):
        self.text += data


def test_curves_go_where_their_figures_are_and_names_are_escaped():
    axis = Axis("N", 1.0, 3.0, [1.0, 3.0])
    chart = line_chart("Recall", axis, "recall, %", [Curve("a <b>", [1.0, 2.0, 3.0], [0.0, 50.0, 100.0])])
    assert "<b>" not in str(chart.svg)
    points = str(chart.svg).split('points="')[1].split('"')[0].split()
    x, y = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2)
    assert y[0] > y[2]


def test_curves_use_the_height():
    """The axis begins just below the lowest value, in round steps."""
    axis = Axis("N", 1.0, 3.0, [1.0, 3.0])
    for lowest, first in ((91.0, 90.0), (75.0, 75.0), (42.0, 40.0), (0.0, 0.0), (100.0, 100.0 - 2)):
        svg = str(line_chart("Recall", axis, "recall, %", [Curve("a", [1.0, 3.0], [lowest, 100.0])]).svg)
        ticks = [float(text) for text in re.findall(r'text-anchor="end">([\d.]+)<', svg)]
        assert (ticks[0], ticks[-1]) == (first, 100.0), lowest
        assert 2 <= len(ticks) <= 7
    assert f"N 3: {100:.1f} %" in svg


def test_maps_go_on_across_the_border_of_a_zone():
    """Four spots along 49 N, 15 m apart, two on each side of 6 E; coordinates by an independent implementation."""
    west = [MetricPosition(x, y, "UTM 31U") for x, y in ((719391.21, 5431791.98), (719406.21, 5431792.57))]
    east = [MetricPosition(x, y, "UTM 32U") for x, y in ((280593.79, 5431792.57), (280608.79, 5431791.98))]
    drawn = draw_map([Spot(position, "right", "") for position in (*west, *east)])
    assert drawn is not None
    assert drawn.elsewhere == 0
    steps = np.linalg.norm(np.diff(HTMLText(str(drawn.svg)).circles, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.01)
