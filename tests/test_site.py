"""The site is built without a warning, asks nothing of the network, and says what the code says."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

import algorithms
from benchmarks.suites.schema import Suite
from unlearn_kit.engine import facts_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import make_site  # noqa: E402
from sitegen import command, links, marks, methods, modules, nav, suites  # noqa: E402

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "docs" / "make_site.py"), str(out)]  # leaves with 1 on any warning
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


class Loaded(HTMLParser):
    """What a page loads: not what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "srcset", "object": "data"}
        self.found += [value for name, value in attrs if name == wanted.get(tag) and value]


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [url for url in loaded.found if "//" in url] == [], page
    for style in site.rglob("*.css"):
        urls = re.findall(r"url\(['\"]?(?!data:)([^)'\"]+)|@import\s+['\"]([^'\"]+)", style.read_text(encoding="utf-8"))
        assert [url for pair in urls for url in pair if "//" in url] == [], style


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("page", ["index", "which-method", "reference/methods/erase_to_retain", "suites/fashion-class"])
def test_a_browser_asks_for_nothing_and_a_phone_scrolls_in_one_direction(site: Path, page: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((site / f"{page}.html").as_uri())
        beyond = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert beyond <= 0


def test_it_is_served_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    monkeypatch.setattr(make_site, "build", lambda _: None)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda self: served.append(self.server_address[0]))
    monkeypatch.setattr(sys, "argv", ["make_site.py", str(tmp_path), "--serve", "0"])
    make_site.main()
    assert served == ["127.0.0.1"]


def test_guides_name_what_a_newcomer_looks_for() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    wanted = ("evidence.receipt", "ProgressBar", "declare_head", "with_output", "metadata.csv", "reference/suites.md")
    assert [name for name in wanted if name not in text] == []


def test_every_public_name_is_on_a_page(site: Path) -> None:
    for name in modules.modules():
        page = (site / f"{modules.INDEX}/{name}.html").read_text(encoding="utf-8")
        missing = [
            public
            for public in importlib.import_module(name).__all__
            if callable(getattr(importlib.import_module(name), public)) and f">{public}<" not in page
        ]
        assert missing == [], name


def test_every_method_has_a_page_with_its_facts_and_options(site: Path) -> None:
    for name in algorithms.__all__:
        page = (site / f"{methods.INDEX}/{name}.html").read_text(encoding="utf-8")
        facts = facts_of(getattr(algorithms, name))
        assert all(kind in page for kind in facts.kinds)
        assert [number for number in re.findall(r"\d{4}\.\d{5}", facts.source) if f"abs/{number}" not in page] == []
        assert f'id="algorithms.{name}"' in page


def test_the_table_of_methods_is_what_they_declare() -> None:
    index = methods.pages()[methods.INDEX]
    for name in algorithms.__all__:
        facts = facts_of(getattr(algorithms, name))
        (line,) = [line for line in index.splitlines() if line.startswith(f"| [`{name}`](methods/{name}.md) |")]
        *_, masks, retain, source = re.split(r"(?<!\\) ?\| ?", line.strip("| "))
        assert (masks == "yes") == ("segmentation" in facts.kinds)
        assert (retain == "yes") == facts.reads_retain
        assert all(part in source for part in facts.source.split("arXiv"))


def test_the_settings_shown_are_those_that_differ() -> None:
    page = methods.page("delete")
    assert "| `steps` | `80` |" in page
    assert "| `clip` | `1.0` |" in page
    assert "momentum" not in page.partition("## Options")[0]
    assert "| setting | `paper` | `paper:classification` | `released` |" in methods.page("erase_to_retain")


def test_only_what_an_adapter_undoes_is_called_reversible() -> None:
    said = {name for name in algorithms.__all__ if "switched_off" in (getattr(algorithms, name).__doc__ or "")}
    assert set(methods.REVERSIBLE) == said


def test_every_key_of_a_suite_is_explained() -> None:
    text = suites.schema(ROOT)
    assert all(f"| `{key}` |" in text for key in Suite.model_fields)
    assert "| `epochs` | Passes over the training data. | a whole number, or nothing | nothing |" in text


def test_a_suite_that_was_run_has_its_table_curves_and_data() -> None:
    text = suites.results(ROOT, "fashion-class")
    assert "| 1 | erase\\_to\\_retain | 0.003\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.003 |" in text
    assert text.count("![") == len(list((ROOT / "docs/suites/fashion-class").glob("*.svg"))) == 3
    assert "Forget against retain, on test data" in text
    assert "(fashion-class.csv)" in text


def test_every_command_is_explained() -> None:
    (text,) = command.pages().values()
    assert {"revise", "verify", "ledger add"} <= set(re.findall(r"^#+ `unlearn-kit ([^`]+)`", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("target", "document", "gives"),
    [
        ("evidence.md#verify", "docs/ledger.md", "evidence.md#verify"),
        ("../docs/evidence.md", "proofs_notebooks/README.md", "evidence.md"),
        ("../../docs/composition.md", "docs/suites/claims.md", "../composition.md"),
        ("docs/suites", "README.md", "suites/README.md"),
        ("../benchmarks/results/verdicts.md", "docs/evidence.md", "measured/verdicts.md"),
        ("../proofs_notebooks/README.md", "docs/evidence.md", "proofs.md"),
        ("algorithms/finetune.py", "CONTRIBUTING.md", "files/algorithms/finetune.py"),
        ("https://example.org/a.md", "README.md", "https://example.org/a.md"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(target: str, document: str, gives: str) -> None:
    text, files = links.relink(f"[x]({target})", document, ROOT)
    assert text == f"[x]({gives})"
    assert files == ({target} if gives.startswith("files/") else set())


def test_a_link_to_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"docs/ledger.md: expected a link to lead somewhere, but got 'gone.py'"):
        links.relink("[x](gone.py)", "docs/ledger.md", ROOT)


def test_marks_are_filled_and_unknown_ones_named() -> None:
    table = marks.filled("<!-- ranking: fashion-class -->", ROOT)
    assert table.count("\n") == 2 + 2 + 5  # headings, original and reference, the nearest
    assert "| [`erase_to_retain`](reference/methods/erase_to_retain.md) | 0.003" in table
    assert marks.filled("<!-- section: docs/evidence.md, Words for a lawyer -->", ROOT).startswith("**Model")
    with pytest.raises(ValueError, match=r"expected a mark of \['columns', 'ranking', 'section'\], but got 'other'"):
        marks.filled("<!-- other: x -->", ROOT)


def test_a_page_of_no_section_has_its_place_and_a_section_names_pages_that_are_there() -> None:
    pages = ["index", "large", "measured/verdicts", *(page for section in nav.SECTIONS.values() for page in section)]
    guides = nav.toctrees(pages, []).partition(":caption: How to")[2].partition("```")[0]
    assert "\nlarge\n" in guides
    results = nav.toctrees(pages, []).partition(":caption: Results")[2].partition("```")[0]
    assert ("\nmeasured/verdicts\n" in results, "\nlarge\n" in results) == (True, False)
    with pytest.raises(ValueError, match="these are not"):
        nav.toctrees(["index"], [])
