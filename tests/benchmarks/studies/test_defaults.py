"""The study of defaults: what is drawn, what is chosen, that validation data choose and test data judge."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from benchmarks.setup.methods import METHODS, check_values
from benchmarks.studies import default_tables, defaults
from benchmarks.studies.default_ranges import FORMER, MENDED, RANGES, Range, trials
from benchmarks.studies.defaults import Place

FOR_SAMPLES = {"quantile_matching", "augmentation_matching"}


def test_every_method_that_forgets_classes_is_in_the_study_and_takes_every_setting() -> None:
    assert set(RANGES) | FOR_SAMPLES == set(METHODS)
    for method, ranges in RANGES.items():
        assert 1 <= len(ranges) <= 3
        start, *drawn = trials(method, 6)
        assert start == FORMER.get(method, {}) | MENDED.get(method, {})
        assert len(drawn) == 6
        for options in (start, *drawn):
            check_values(method, options)
        assert trials(method, 6) == [start, *drawn]


def test_settings_are_one_in_each_part_of_the_logarithm_of_a_range() -> None:
    for method in ("scrub", "neg_grad_plus", "delete"):
        for name, r in RANGES[method].items():
            values = [1 - s[name] if r.form == "complement" else s[name] for s in trials(method, 5)[1:]]
            shares = [math.log(v / r.low) / math.log(r.high / r.low) for v in values]
            # Three digits, or whole steps, move a value by less than a tenth of a part.
            assert sorted(round(5 * share - 0.5) for share in shares) == pytest.approx([0, 1, 2, 3, 4], abs=1)
            assert all(-0.02 <= share <= 1.02 for share in shares)
    assert [Range(1e-3, 1e-1).at(share) for share in (0, 0.5, 1)] == [1e-3, 1e-2, 1e-1]
    assert Range(1e-3, 1e-1, "complement").at(0.5) == 0.99
    assert Range(10, 40, "count").at(0.5) == 20


class Told:
    """A bench whose gaps are given: ``gaps[trial][place and seed]``, and those of a second reference."""

    def __init__(self, gaps: list[list[float | None]], second: list[float], works: list[float]) -> None:
        self.gaps, self.second, self.works, self.asked = gaps, second, works, 0

    def cell(self, place: Place, seed: int, method: str, options: dict[str, Any], judged: bool) -> dict[str, Any]:
        assert not judged
        at = [(p, s) for p, s, _ in defaults.mean_over(PLACES)].index((place, seed))
        if method == "second reference":
            return {"gap": self.second[at]}
        self.asked += 1
        number = trials(method, len(self.gaps) - 1).index(options)
        return {"gap": self.gaps[number][at], "work": self.works[number]}


PLACES = (Place("digits", 3, (0, 1)), Place("fashion-mnist", 7, (0,)), Place("dermamnist", 4, (0,)))


def test_what_ends_a_trial_early_never_changes_what_is_chosen() -> None:
    source, changed, saved = random.Random(0), 0, 0
    for _ in range(60):
        gaps: list[list[float | None]] = [[source.random() for _ in range(4)] for _ in range(5)]
        if source.random() < 0.3:
            gaps[source.randrange(5)][source.randrange(4)] = None  # refused, or diverged
        second = [source.random() / 3 for _ in range(4)]
        works, margin = [source.random() for _ in range(5)], source.random() / 4
        bench: Any = Told(gaps, second, works)
        found = defaults.tune(bench, "delete", PLACES, 4, margin)
        # All of it, measured to the end: a mean over places of means over seeds.
        over = [[math.inf if g is None else max(0, g - s) for g, s in zip(row, second, strict=True)] for row in gaps]
        scores = [fmean([fmean(row[:2]), row[2], row[3]]) for row in over]
        allowed = [n for n in range(1, 5) if works[n] <= max(0.5, works[0]) and scores[n] < scores[0] - margin]
        best = min(allowed, key=lambda n: scores[n], default=None)
        assert found["start"]["score"] == pytest.approx(scores[0])
        assert (found["best"] is None) == (best is None)
        if best is not None:
            assert found["best"]["options"] == trials("delete", 4)[best]
            assert found["best"]["score"] == pytest.approx(scores[best])
            assert found["best"]["work"] == pytest.approx(works[best])
        changed, saved = changed + (best is not None), saved + (bench.asked < 20)
    assert changed > 10
    assert saved > 10


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "NETWORK", "mlp")
    monkeypatch.setattr(defaults, "EPOCHS", {"digits": 1})
    monkeypatch.setattr(defaults, "TUNING", (Place("digits", 3, (100,)), Place("dermamnist", 4, (100,))))
    monkeypatch.setattr(defaults, "REPORT", (Place("digits", 3, (0,)), Place("digits", 0, (0,))))
    monkeypatch.setattr(defaults, "AGAIN", Place("digits", 3, (0,)))
    monkeypatch.setattr(defaults, "CLOTHES", Place("digits", 0, (0,)))
    monkeypatch.setattr(defaults, "METHODS", ("boundary_shrink", "delete", "quantile_matching"))


def test_the_study_writes_what_it_chose_and_goes_on_where_it_was(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--out", str(tmp_path), "--methods", "boundary_shrink", "delete", "--trials", "1"]
    assert defaults.main(command) == 0
    assert "dermamnist is left out" in capsys.readouterr().out
    study = json.loads((tmp_path / "defaults.json").read_text())
    assert study["tuning"] == ["digits class 3"]
    assert [found["method"] for found in study["tuned"]] == ["boundary_shrink", "delete"]
    shown = {(r["place"], r["method"], r["when"]) for r in study["report"]}
    assert ("digits class 0", "boundary_shrink", "before") in shown
    assert ("digits class 3", "delete", "after") in shown
    asked = [json.loads(name) for name in json.loads((tmp_path / "records.json").read_text())]
    # What chooses reads validation data and seeds of its own; what is shown is of other seeds, on test data.
    assert {seed for _, seed, _, _, data in asked if data == "validation"} == {100}
    assert {seed for _, seed, _, _, data in asked if data == "test"} == {0}
    page = (tmp_path / "defaults.md").read_text()
    assert "| boundary_shrink | lr [0.002, 0.05], radius [0.03, 0.3], retain_weight [1, 10] |" in page
    monkeypatch.setattr(defaults.PlaceModels, "measure", None)  # nothing is measured anew
    assert defaults.main(command) == 0
    assert (tmp_path / "defaults.md").read_text() == page


def test_tuning_reads_no_test_sample_and_the_report_reads_them(small: None, tmp_path: Path) -> None:
    bench = defaults.Bench(tmp_path, None)
    place = defaults.TUNING[0]
    chooses, judges = (bench.setting(place, 100, judged) for judged in (False, True))
    assert chooses.judged_on.retain_test is chooses.task.retain_validation
    assert len(chooses.judged_on.retain_validation) == 0
    assert judges.judged_on.retain_test is judges.task.retain_test


def test_tables_say_before_and_after_and_who_leaves_too_much() -> None:
    def row(method: str, place: str, when: str, gap: float | None, forget: float | None) -> dict[str, Any]:
        return {"method": method, "place": place, "when": when, "gap": gap, "forget": forget}

    rows = [
        row("second reference", "here", "", 0.01, 0.0),
        row("scrub", "here", "before", 0.2, 0.8),
        row("scrub", "here", "before", 0.3, 0.6),
        row("scrub", "here", "after", 0.02, 0.0),
        row("scrub", "there", "after", 0.02, 0.11),
        row("ssd", "here", "after", None, None),
        row("ssd", "there", "after", 0.1, 0.0),
        row("jit", "here", "after", 0.1, 0.2),
        row("jit", "there", "after", 0.1, 0.9),
    ]
    told = "\n".join(default_tables.before_and_after(rows))
    assert "| scrub | 0.2500 (0.700) -> 0.0200 (0.000) | n/a -> 0.0200 (0.110) |" in told
    assert "| second reference | 0.0100 (0.000) | n/a |" in told
    told = "\n".join(default_tables.left(rows, {"fashion": "here", "again": "there"}))
    assert "| scrub | 0.000 | 0.110 | **leaves too much** |" in told
    assert "| ssd | n/a | 0.000 | n/a |" in told
    assert "| jit | 0.200 | 0.900 | does not forget on Fashion |" in told
