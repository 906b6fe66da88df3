"""A report in headless Chromium: the filters by keyboard, narrow and wide, light and dark, and nothing fetched."""

from pathlib import Path

import numpy as np
import pytest

from vpr_dhe.records import MetricPosition, Verification
from vpr_dhe.report.html.charts import Axis, Curve, line_chart
from vpr_dhe.report.html.match_report import Report, ShownMatch, ShownQuery, Table, write_report
from vpr_dhe.report.html.position_map import Spot, draw_map
from vpr_dhe.report.pictures.drawing import draw_match
from vpr_dhe.report.pictures.encoding import data_uri, jpeg

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='taken over'</script>.jpg"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Six queries, two of them wrong, with all that a report can hold."""
    rng = np.random.default_rng(0)
    drawn = draw_match(
        *(rng.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(2)),
        Verification(np.eye(3), 3.0, np.array([[10.0, 10.0]]), np.array([[20.0, 30.0]])),
        side_px=120,
    )
    picture = data_uri(jpeg(drawn, side_px=260))
    names = [HOSTILE, "street/wrong.jpg", *(f"street/{number:03d}@with@a@very@long@name" * 3 for number in range(4))]
    queries = tuple(
        ShownQuery(
            f"q{number}",
            name,
            "wrong" if number < 2 else "right",
            "none of the first 20",
            tuple(ShownMatch(f"rank {rank}", name, ("3 inliers",), number >= 2, picture) for rank in (1, 2, 3)),
            probability=number / 5,
            confidence="sure" if number == 5 else "unsure" if number > 2 else "unknown",
        )
        for number, name in enumerate(names)
    )
    spots = [
        Spot(MetricPosition(10.0 * number, 5.0 * number), query.outcome, query.query, query.id)
        for number, query in enumerate(queries)
    ]
    written = Report(
        title="A data set",
        facts=(("Model", "sift-vlad"),),
        selection="All 6 queries, the worst first.",
        queries=queries,
        table=Table(["", *(f"R@{n}" for n in range(1, 13))], [["magsac, top 100", *["66.7"] * 12]], "in %"),
        charts=(
            line_chart("Recall@N", Axis("N", 1.0, 2.0, [1.0, 2.0]), "%", [Curve("magsac", [1.0, 2.0], [60.0, 80.0])]),
        ),
        map=draw_map(spots),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(written, path)
    return path


@pytest.fixture
def opened(browser, report):
    """Open the report; whatever is fetched besides, or goes wrong, fails the test."""
    pages, troubles = [], []

    def open_page(width: int = 1200, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: troubles.append(request.url) if "report.html" not in request.url else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [trouble for trouble in troubles if not trouble.startswith("data:")] == []


def shown(page) -> list[str]:
    return [article.get_attribute("id") for article in page.query_selector_all("article") if article.is_visible()]


def test_filters_work_by_keyboard(opened):
    page = opened()
    assert page.title() == "A data set"
    assert shown(page) == [f"q{number}" for number in range(6)]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the queries"
    page.keyboard.press("Enter")
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "radio":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowDown")
    assert shown(page) == ["q0", "q1"]
    page.keyboard.press("ArrowDown")
    assert shown(page) == ["q2", "q3", "q4", "q5"]
    page.keyboard.press("Tab")
    page.keyboard.type("STREET/002")
    assert shown(page) == ["q4"]
    assert page.locator("output").text_content() == "1 of 6"
    page.keyboard.type(" nowhere")
    assert shown(page) == []
    assert page.locator("#nothing").is_visible()
    # A dot of the map leads to a query although it is filtered away.
    page.locator("a[href='#q0'] circle").click()
    page.locator("#q0").wait_for(state="visible")
    assert page.title() == "A data set"


def test_pictures_are_enlarged_and_closed_again(opened):
    page = opened(390)
    assert not page.locator("#enlarged").is_visible()
    page.locator("#q1 button.picture").first.click()
    enlarged = page.locator("#enlarged img")
    enlarged.wait_for()
    assert enlarged.bounding_box()["width"] > page.locator("#q1 img").first.bounding_box()["width"]
    page.keyboard.press("Escape")
    page.locator("#enlarged").wait_for(state="hidden")


def test_answers_below_a_threshold_look_rejected(opened):
    page = opened()
    page.locator("input[name='least']").fill("0.5")
    assert page.locator("article.rejected").count() == 3
    assert page.locator("#q0 .verdict").text_content() == "unknown place"
    assert page.locator("#q5 .verdict").text_content() == "right"
    page.locator("input[name='least']").fill("0")
    assert page.locator("article.rejected").count() == 0
    assert page.locator("#q0 .verdict").text_content() == "wrong"


def test_figures_scroll_sideways_below_their_names(opened):
    page = opened(390)
    page.locator(".scroll").evaluate("element => (element.scrollLeft = 500)")
    assert page.locator("tbody th").first.bounding_box()["x"] == pytest.approx(
        page.locator(".scroll").bounding_box()["x"], abs=1
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_and_can_be_read(opened, tmp_path, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#q0 img").first.scroll_into_view_if_needed()
    assert page.locator("#q0 img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 252
    for selector in ("body", ".quiet", ".verdict", "h3"):
        assert contrast(page, selector) >= 4.5, selector
    picture = page.screenshot(path=tmp_path / "report.png")
    assert len(picture) > 5000


def contrast(page, selector: str) -> float:
    """Contrast of text against the card or page below it (WCAG 2.2, section 1.4.3)."""
    colours = page.locator(selector).last.evaluate(
        """element => {
            const opaque = (one) => {
                const colour = getComputedStyle(one).backgroundColor;
                return colour === "rgba(0, 0, 0, 0)" ? opaque(one.parentElement) : colour;
            };
            return [getComputedStyle(element).color, opaque(element)];
        }"""
    )
    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([float(part) for part in colour.split("(")[1].rstrip(")").split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
