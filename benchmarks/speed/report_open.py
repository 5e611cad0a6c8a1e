"""How large the report of a run's folder is, and how soon it opens.

``python -m benchmarks.speed.report_open [DIR]``; without a folder, the report of about 200 made-up runs, or of a
thousand with ``--trainings 16``. Measured are the seconds of writing it, the largest memory of a process that does
that alone and the share of it that the imports had taken, the seconds until a headless Chromium has loaded the page,
and until the first chart is there when a reader scrolls to it at once, both from the start of the navigation; the
smallest and the median of several, each in a fresh page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..suites.store import Store
from .made_up import write_made_up

DRAWN = "#tradeoff .scatterlayer .trace"
WRITE = """
import json, sys, time
from benchmarks.report import write_report
from unlearn_kit.memory import resident_peak

imported, started = resident_peak(), time.perf_counter()
write_report(sys.argv[1], out=sys.argv[2])
print(json.dumps([time.perf_counter() - started, imported, resident_peak()]))
"""


def measure(
    out: Path | None = None, *, repeats: int = 5, methods: int = 26, trainings: int = 3, revisions: int = 2
) -> dict[str, Any]:
    """Return the number of runs, what writing took, bytes of the page, seconds until it and its first chart are there.

    Raises:
        RuntimeError: When there is no Chromium or playwright.
    """
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser_path = None
    if browser_path is None:
        raise RuntimeError("expected Chromium and the Python package playwright to be installed, but found no such")
    from ..setup.methods import METHODS

    with tempfile.TemporaryDirectory() as folder:
        if out is None:
            store = write_made_up(folder, methods=METHODS[:methods], trainings=trainings, revisions=revisions)
        else:
            store = Store(out, create=False)
        runs = sum(record.kind == "result" for record in store.records())
        path = Path(folder) / "opened.html"
        alone = [sys.executable, "-c", WRITE, str(store.root), str(path)]
        written, imported, peak = json.loads(subprocess.run(alone, stdout=subprocess.PIPE, check=True).stdout)
        loaded, drawn = [], []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            for _ in range(repeats):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(Path(path).as_uri())
                loaded.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
                page.evaluate("document.getElementById('tradeoff').scrollIntoView()")
                page.wait_for_selector(DRAWN, state="attached")
                drawn.append(page.evaluate("performance.now()") / 1000)
                page.close()
            browser.close()
        return {
            "runs": runs,
            "bytes": path.stat().st_size,
            "written": written,
            "peak_memory": peak,
            "share_of_imports": None if imported is None or peak is None else imported / peak,
            "loaded": {"min": min(loaded), "median": statistics.median(loaded)},
            "first_chart": {"min": min(drawn), "median": statistics.median(drawn)},
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="folder of a run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trainings", type=int, default=3, help="of the made-up runs, about 60 for each")
    given = parser.parse_args(arguments)
    sys.stdout.write(json.dumps(measure(given.out, repeats=given.repeats, trainings=given.trainings), indent=2) + "\n")


if __name__ == "__main__":
    main()
