from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import write_report
from benchmarks.speed.made_up import write_made_up

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

ATTACK = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">'
METHODS = ("finetune", "scrub", "ssd", "delete", "perturbed_sign")
SHOWN = "#rows tbody:not([hidden]) tr[data-role=method]:not([hidden])"
DRAWN = " .scatterlayer .trace"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-up")
    write_made_up(
        folder, forget=[("class:0",), ("class:3", "class:5")], methods=METHODS, extra=[(ATTACK, {"lr": ATTACK})]
    )
    return write_report(folder)


@pytest.fixture(scope="module")
def with_losses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of records that hold losses and predictions of forgotten samples."""
    store = write_made_up(tmp_path_factory.mktemp("losses"), methods=("finetune", "scrub"), trainings=1, revisions=1)
    for record in list(store.records()):
        best = record.config["method"]["name"] == "reference"
        losses = [2.0, 1.0, 0.5] if best else [0.0, 1.0, 4.0]
        store.write(replace(record, forget_losses=losses, confusion={"0": {"0": 1, "6": 3}}), {})
    return write_report(store.root)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A page, and all that it asks for and complains about."""

    def __init__(self, browser: Any, report: Path, **context: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.report = report
        self.page = browser.new_context(**context).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(report.as_uri())

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.page.locator(selector).all_inner_texts()
        return found


@pytest.fixture(scope="module")
def desktop(browser: Any, report: Path) -> Iterator[Watched]:
    found = Watched(browser, report, viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield found
    found.page.close()


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves the shared page as it was opened."""
    yield
    if "desktop" in request.fixturenames:
        page = request.getfixturevalue("desktop").page
        for name, value in (("#task", "s0"), ("#data", "task"), ("#method", "")):
            page.select_option(name, value)
        page.fill("#text", "")
        page.click("[data-sort=rank]")
        if page.get_attribute("th:has([data-sort=rank])", "aria-sort") == "descending":
            page.click("[data-sort=rank]")
        page.evaluate("document.getElementById('clear').click(); scrollTo(0, 0)")


def labels(desktop: Watched) -> list[str]:
    return desktop.texts(f"{SHOWN} .label a")


def test_rows_are_there_with_original_and_reference_first(desktop: Watched) -> None:
    rows = desktop.texts("#rows tbody:not([hidden]) tr[data-role]")
    assert rows[0].startswith("original (do nothing)")
    assert rows[1].startswith("reference (retrained)")
    assert len(rows) == 2 + len(METHODS) + 5 + 1
    assert desktop.texts(f"{SHOWN} .rank") == [str(place) for place in range(1, 12)]
    assert "n/a" in rows[0]


def test_a_heading_sorts_by_click_and_by_keyboard_but_leaves_the_first_two(desktop: Watched) -> None:
    page = desktop.page
    place = 1 + desktop.texts("#rows thead [data-sort]").index("seconds")
    cells = f"{SHOWN} > :nth-child({place})"

    def seconds() -> list[float]:
        return [float(text.split("\n")[0]) for text in desktop.texts(cells)]

    before = seconds()
    head = page.locator("#rows thead button", has_text="seconds")
    cell = page.locator("#rows th", has=page.locator("button", has_text="seconds"))
    head.click()
    assert seconds() == sorted(before) != before
    assert cell.get_attribute("aria-sort") == "ascending"
    head.focus()
    page.keyboard.press("Enter")
    assert seconds() == sorted(before, reverse=True)
    assert cell.get_attribute("aria-sort") == "descending"
    assert page.locator("#rows th[aria-sort=ascending]").count() == 0
    assert desktop.texts("#rows tbody:not([hidden]) tr[data-role]")[0].startswith("original")
    page.locator("#rows thead button", has_text="method").focus()
    page.keyboard.press("Space")
    assert labels(desktop)[:3] == [ATTACK, "delete", "finetune"]
    # Numbers in names are sorted as numbers.
    assert [text for text in labels(desktop) if "weight" in text][-2:] == [
        "perturbed_sign:retain_weight=3",
        "perturbed_sign:retain_weight=10",
    ]


def test_rows_are_filtered_by_text_method_and_data(desktop: Watched) -> None:
    page = desktop.page
    page.fill("#text", "weight perturbed")
    assert len(labels(desktop)) == 5
    assert page.inner_text("#shown") == "5 of 11 methods"
    page.fill("#text", "nothing like it")
    assert labels(desktop) == []
    assert page.locator("#rows tbody:not([hidden]) tr[data-role]:not([hidden])").count() == 2
    page.fill("#text", "")
    page.select_option("#method", "scrub")
    assert labels(desktop) == ["scrub"]
    page.select_option("#data", "all")
    assert labels(desktop) == ["scrub", "scrub"]
    assert desktop.texts("#rows .group:not([hidden])") == [
        "fashion-mnist · class:0 · small-cnn",
        "fashion-mnist · class:3, then class:5 · small-cnn",
    ]
    page.select_option("#data", "data:fashion-mnist")
    assert page.locator("#rows tbody:not([hidden])").count() == 2


def test_two_rows_are_pinned_side_by_side(desktop: Watched) -> None:
    page = desktop.page
    assert page.locator("#compare").is_hidden()
    page.locator(f"{SHOWN} .pin").nth(0).click()
    first = labels(desktop)[0]
    assert page.locator(f"{SHOWN} .pin").nth(0).get_attribute("aria-pressed") == "true"
    page.locator(f"{SHOWN} .pin").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#said").inner_text() == f"Pinned: {first} and {labels(desktop)[1]}"
    heads = desktop.texts("#comparison thead th")
    assert heads[1].startswith(f"A {first}")
    assert heads[2].startswith(f"B {labels(desktop)[1]}")
    assert [text.lower() for text in heads[3:]] == ["b \u2212 a", "reference"]
    gap = page.locator("#comparison tbody tr").filter(has=page.locator("th", has_text="gap")).locator("td")
    a, b, difference, reference = gap.all_inner_texts()
    assert float(b.split("\n")[0]) - float(a.split("\n")[0]) == pytest.approx(float(difference), abs=2e-3)
    assert reference.startswith("0.000")
    # A third takes the place of the first, and again the same one goes.
    page.locator(f"{SHOWN} .pin").nth(2).click()
    assert desktop.texts("#comparison thead th")[1].startswith(f"A {labels(desktop)[1]}")
    page.locator(f"{SHOWN} .pin").nth(2).click()
    assert page.locator("#pins button").count() == 1


def test_points_of_a_chart_are_pinned_by_click_and_by_keyboard(desktop: Watched) -> None:
    page = desktop.page
    page.evaluate("document.getElementById('tradeoff').scrollIntoView()")
    page.wait_for_selector(f"#tradeoff{DRAWN}", state="attached")
    # The reference's star is the last mark; it has a place of its own.
    box = page.locator("#tradeoff .scatterlayer .trace").last.locator(".points path").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#tradeoff .hoverlayer .hovertext", state="attached")
    assert "reference (retrained)" in page.locator("#tradeoff .hoverlayer").text_content()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#comparison thead").wait_for()
    assert "reference (retrained)" in desktop.texts("#comparison thead th")[1]
    page.locator("#tradeoff .chart").focus()
    page.keyboard.press("ArrowRight")
    said = page.locator("#said").inner_text()
    assert "forget" in said
    page.keyboard.press("ArrowRight")
    assert page.locator("#said").inner_text() != said
    page.keyboard.press("Enter")
    assert desktop.texts("#comparison thead th")[2].startswith("B ")
    assert page.evaluate("document.activeElement.dataset.chart") == "tradeoff"


def test_who_unpins_by_keyboard_goes_on_from_the_next_pin_and_then_from_the_chart(desktop: Watched) -> None:
    page = desktop.page
    for place in (0, 1):
        page.locator(f"{SHOWN} .pin").nth(place).click()
    chips = page.locator("#pins button")
    second = chips.nth(1).get_attribute("data-pin")
    chips.nth(0).focus()
    page.keyboard.press("Enter")
    assert chips.count() == 1
    assert page.evaluate("[document.activeElement.parentElement.id, document.activeElement.dataset.pin]") == [
        "pins",
        second,
    ]
    page.keyboard.press("Enter")
    assert chips.count() == 0
    assert page.evaluate("document.activeElement.dataset.chart") == "tradeoff"


VIEW = """() => {
    const box = document.querySelector('#tradeoff .chart');
    const { xaxis, yaxis } = box._fullLayout;
    const hidden = box._fullData.filter((trace) => trace.visible === 'legendonly').map((trace) => trace.name);
    return [xaxis.range, yaxis.range, [...new Set(hidden)]];
}"""


def until(page: Any, script: str, done: Callable[[Any], bool]) -> Any:
    """What the script returns once that is ``done``; the page's policy forbids Playwright to wait by itself."""
    for _ in range(200):
        found = page.evaluate(script)
        if done(found):
            return found
        page.wait_for_timeout(50)
    raise AssertionError(found)


def test_zoom_and_hidden_names_stay_until_the_view_or_the_task_changes(desktop: Watched) -> None:
    page = desktop.page
    page.evaluate("document.getElementById('tradeoff').scrollIntoView()")
    page.wait_for_selector(f"#tradeoff{DRAWN}", state="attached")
    whole = page.evaluate(VIEW)
    assert whole[2] == []

    def zoom_and_hide() -> list[Any]:
        area = page.locator("#tradeoff .nsewdrag").first.bounding_box()
        page.mouse.move(area["x"] + 0.3 * area["width"], area["y"] + 0.3 * area["height"])
        page.mouse.down()
        page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.7 * area["height"], steps=4)
        page.mouse.up()
        page.locator("#tradeoff .legend .traces", has_text="scrub").locator(".legendtoggle").click()
        return list(until(page, VIEW, lambda view: "scrub" in view[2] and view[0] != whole[0] and view[1] != whole[1]))

    mine = zoom_and_hide()
    page.evaluate(f"document.querySelector('{SHOWN} .pin').click()")
    last = "document.querySelector('#tradeoff .chart').data.at(-1).text?.[0]"
    until(page, last, lambda text: text == "<b>A</b>")
    assert page.evaluate(VIEW) == mine
    ink = "document.querySelector('#tradeoff .chart').layout.font.color"
    colors = [page.evaluate(ink)]
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        colors.append(until(page, ink, lambda color: color != colors[-1]))
        assert page.evaluate(VIEW) == mine
    assert colors[0] == colors[2]
    views = page.locator("[data-views=tradeoff] button")
    views.nth(1).click()
    assert page.evaluate(VIEW)[2] == []
    views.nth(0).click()
    assert page.evaluate(VIEW) == whole
    zoom_and_hide()
    page.select_option("#task", "s1")
    assert page.evaluate(VIEW)[2] == []
    page.select_option("#task", "s0")
    assert page.evaluate(VIEW) == whole


def test_single_runs_can_be_pinned_where_a_row_is_reproduced(desktop: Watched) -> None:
    page = desktop.page
    page.locator(f"{SHOWN} .label a", has_text="scrub").click()
    details = page.locator("details.again[open]")
    details.wait_for()
    assert "scrub" in details.locator("summary").inner_text()
    assert "- name: scrub" in details.inner_text()
    assert details.locator(".runs li").count() == 6
    details.locator(".runs button").first.click()
    assert "training 0, revision 0" in desktop.texts("#comparison thead th")[1]
    details.locator(".copy").first.click()
    details.locator(".copy", has_text="Copied").wait_for()
    details.locator("summary").click()


def test_the_task_can_be_chosen(desktop: Watched) -> None:
    page = desktop.page
    page.select_option("#task", "s1")
    assert page.locator("#rows tbody:not([hidden])").get_attribute("data-task") == "s1"
    assert desktop.texts("div[data-task]:visible .lead strong") == ["fashion-mnist · class:3, then class:5 · small-cnn"]


def test_every_chart_is_drawn_when_it_comes_into_view(desktop: Watched) -> None:
    page = desktop.page
    for kind, mark in (("classes", ".heatmaplayer image"), ("learning", DRAWN), ("cost", DRAWN)):
        page.evaluate("(kind) => document.getElementById(kind).scrollIntoView()", kind)
        page.wait_for_selector(f"#{kind} {mark}", state="attached")
    page.get_by_role("button", name="difference to the reference").click()
    assert page.get_by_role("button", name="difference to the reference").get_attribute("aria-pressed") == "true"
    ticks = "".join(page.locator("#classes .ytick").all_text_contents())
    assert ATTACK in ticks  # as text
    assert page.locator("#classes img").count() == 0


def test_charts_are_drawn_before_anybody_scrolls_and_are_light_and_narrow_on_paper(browser: Any, report: Path) -> None:
    size = {"width": 1280, "height": 900}
    opened = Watched(browser, report, viewport=size, color_scheme="dark")
    page = opened.page
    state = """[...document.querySelectorAll('[data-chart]')].map((box) =>
        box.data && box._fullLayout ? [box._fullLayout.width, box.layout.font.color] : null)"""
    drawn = until(page, state, lambda boxes: None not in boxes)
    assert {color for _, color in drawn} == {"#e6e9ec"}
    assert min(width for width, _ in drawn) > 1000
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(state) == [[680, "#1b1f24"]] * len(drawn)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 900})  # A4 within its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    page.emulate_media(media="screen")
    page.set_viewport_size(size)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    until(page, state, lambda boxes: boxes == drawn)
    assert page.evaluate("document.documentElement.dataset.theme") is None
    assert opened.complaints == []
    page.close()


def test_two_rows_are_compared_by_class_and_by_the_losses_of_samples(browser: Any, with_losses: Path) -> None:
    opened = Watched(browser, with_losses, viewport={"width": 1280, "height": 900})
    page = opened.page
    page.locator(f"{SHOWN} .pin").nth(0).click()
    page.locator(f"{SHOWN} .pin").nth(1).click()
    trouser = page.locator("#comparison tbody tr").filter(has_text="class 1 Trouser").locator("td").all_inner_texts()
    a, b, difference, reference = (float(text.replace("\u2212", "-")) for text in trouser)
    assert b - a == pytest.approx(difference, abs=1e-3)
    assert 0.9 < reference <= 1
    drawn = until(page, "document.getElementById('losses-chart').data?.map((one) => [one.name, one.x, one.y])", bool)
    # A loss of zero has no place on a logarithmic axis: it is drawn at the floor.
    assert [[x, y] for _, x, y in drawn] == [[[2, 1, 0.5], [1e-4, 1, 4]]] * 2
    assert [name[:2] for name, _, _ in drawn] == ["A ", "B "]
    assert page.locator("#losses-chart .xtick").all_text_contents()[:2] == ["0.0001", "0.001"]
    said = "1 of 3 samples are known less well than by the reference; median loss 1, the reference's 1."
    assert page.locator("#losses-said").inner_text().count(said) == 2
    shares = page.locator("#confusion tbody tr").first.locator("td").all_inner_texts()
    assert shares == ["0.250", "0.750"]
    page.locator("#clear").click()
    assert page.locator("#losses").is_hidden()
    assert opened.complaints == []
    page.close()


def test_light_and_dark(desktop: Watched) -> None:
    page = desktop.page

    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert ground() == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert ground() == "rgb(20, 23, 26)"
    page.emulate_media(color_scheme="light")
    page.focus("#theme")
    page.keyboard.press("Enter")
    assert ground() == "rgb(20, 23, 26)"
    page.keyboard.press("Enter")
    assert ground() == "rgb(255, 255, 255)"


def test_focus_is_visible(desktop: Watched) -> None:
    page = desktop.page
    page.locator("#rows thead button").first.focus()
    page.keyboard.press("Tab")
    style = page.evaluate(
        "(() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]; })()"
    )
    assert style == ["solid", "2px"]


def test_everything_that_can_be_used_has_a_name(desktop: Watched) -> None:
    nameless = desktop.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a, [role], [tabindex]')]
            .filter((node) => !node.closest('.js-plotly-plot') || node.matches('.chart'))
            .filter((node) => !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby')
                || node.textContent.trim() || node.labels?.length))
            .map((node) => node.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_a_phone_has_no_horizontal_scroll(browser: Any, report: Path) -> None:
    size = {"width": 390, "height": 844}
    phone = Watched(browser, report, viewport=size, has_touch=True, is_mobile=True, color_scheme="dark")
    page = phone.page

    def width() -> int:
        return int(page.evaluate("document.documentElement.scrollWidth"))

    assert width() == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    page.locator(f"{SHOWN} .pin").nth(0).tap()
    page.locator(f"{SHOWN} .pin").nth(1).tap()
    page.locator("details.again >> visible=true").first.evaluate("(node) => { node.open = true; }")
    page.evaluate("document.getElementById('tradeoff').scrollIntoView()")
    page.wait_for_selector(f"#tradeoff{DRAWN}", state="attached")
    assert width() == 390
    assert page.locator("#comparison th").first.is_visible()
    assert phone.requests == [report.as_uri()]
    assert phone.complaints == []
    page.close()


def test_nothing_left_the_page_nothing_ran_that_should_not_and_nothing_complained(desktop: Watched) -> None:
    # Last: of all that the tests above did.
    outside = [
        url
        for url in desktop.requests
        if not url.startswith("data:") and url.partition("#")[0] != desktop.report.as_uri()
    ]
    assert outside == []
    assert desktop.requests[0] == desktop.report.as_uri()
    assert desktop.page.evaluate("window.hacked") is None
    assert desktop.complaints == []
    refused = desktop.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')")
    assert refused == "refused"  # whatever a script would try
