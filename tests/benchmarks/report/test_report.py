from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import scipy.stats
import torch
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from benchmarks.analysis.rows import rows
from benchmarks.analysis.tradeoff import curves_of
from benchmarks.commands.report import report
from benchmarks.report import FORMATS, render, write_report
from benchmarks.report.build import TABLES
from benchmarks.report.classes import heat
from benchmarks.report.confusion import confusion
from benchmarks.report.curves import slug
from benchmarks.report.figures import figures
from benchmarks.report.groups import group_table
from benchmarks.report.learning import learning
from benchmarks.report.looks import identifiers, looks
from benchmarks.report.pictures import strips
from benchmarks.report.reproduce import command, suite_of, suite_text
from benchmarks.report.rows import TIMES, ReportRow
from benchmarks.report.scatter import scatter
from benchmarks.report.sequence import relapsed, standings
from benchmarks.report.summary import forgotten, summary
from benchmarks.report.tables import COLUMNS
from benchmarks.report.tasks import ReportTask, tasks
from benchmarks.setup.methods import METHODS
from benchmarks.setup.recipes import Blueprint
from benchmarks.speed.made_up import write_made_up
from benchmarks.suites import parse_suite
from benchmarks.suites.execute import execute
from benchmarks.suites.plan import plan, select
from benchmarks.suites.records import Record
from benchmarks.suites.store import Store, read_json
from unlearn_kit.data import load, load_tensors
from unlearn_kit.files import write_json

METHOD_NAMES = ("finetune", "scrub", "ssd", "perturbed_sign")
HOSTILE = "a|b_{$%} <script>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_made_up(tmp_path / "out", methods=METHOD_NAMES)


def change(store: Store, edit: Callable[[dict[str, Any]], None], **wanted: Any) -> None:
    """Rewrite the results whose method's text, or training seed, is the wanted one."""
    for record in chosen(store, **wanted):
        rewrite(store, record, edit)


def rewrite(store: Store, record: Record, edit: Callable[[dict[str, Any]], None]) -> None:
    values = record.as_dict()
    edit(values)
    store.write(Record.from_dict(values), {})


def chosen(store: Store, **wanted: Any) -> list[Record]:
    found = []
    for record in store.records():
        known = {"text": record.config["method"]["text"], "training": record.config["seeds"]["training"]}
        if all(known[name] == value for name, value in wanted.items()):
            found.append(record)
    return found


def scores_of(record: dict[str, Any]) -> dict[str, Any]:
    """What an edit may change."""
    return record["evaluations"][0]["scores"]


def scored(record: Record) -> dict[str, Any]:
    return dict(record.evaluations[0].scores)


def fail(status: str, reason: str) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.update(status=status, reason=reason, evaluations=[])


def lose(store: Store, **wanted: Any) -> None:
    """Remove those results, as if they had not been run yet; the suite still lists them."""
    for record in chosen(store, **wanted):
        store.forget(record.key)


def read(store: Store) -> list[ReportTask]:
    return tasks(rows(store.root))


def row(task: ReportTask, text: str) -> ReportRow:
    return next(one for one in task.rows if one.text == text)


# ---- rows ----


def test_a_figure_is_the_mean_of_training_means_with_their_t_interval(store: Store) -> None:
    (task,) = read(store)
    by_training: dict[int, list[float]] = {}
    for record in chosen(store, text="scrub"):
        by_training.setdefault(record.config["seeds"]["training"], []).append(scored(record)["retain_test"])
    means = [np.mean(values) for _, values in sorted(by_training.items())]
    assert [len(values) for values in by_training.values()] == [2, 2, 2]
    low, high = scipy.stats.t.interval(0.95, 2, loc=np.mean(means), scale=scipy.stats.sem(means))
    found = row(task, "scrub").figure("retain_test")
    assert found.mean == pytest.approx(np.mean(means))
    assert found.mean - found.half == pytest.approx(low)
    assert found.mean + found.half == pytest.approx(high)
    assert row(task, "scrub").count == f"3{TIMES}2"
    assert row(task, "reference").count == "3"


def test_original_and_reference_come_first_then_methods_by_their_gap(store: Store) -> None:
    (task,) = read(store)
    assert [one.role for one in task.rows[:2]] == ["original", "reference"]
    gaps: dict[str, list[float]] = {}
    for record in store.records():
        gaps.setdefault(record.config["method"]["text"], []).append(scored(record)["average_gap"])
    methods = [one.text for one in task.rows[2:]]
    assert methods == sorted(methods, key=lambda text: np.mean(gaps[text]))
    assert [one.rank for one in task.rows] == [None, None, *range(1, len(methods) + 1)]
    assert len(methods) == 4 + 5


def test_where_there_is_nothing_to_forget_nothing_is_ranked(store: Store) -> None:
    reference = scored(chosen(store, text="reference")[0])
    same = {name: reference[name] for name in ("forget", "forget_test", "membership")}

    def alike(record: dict[str, Any]) -> None:
        scores_of(record).update(same)

    change(store, alike, text="reference")
    change(store, alike, text="original", training=0)
    (task,) = read(store)
    assert task.ranked
    assert task.notes == ["In 1 of 3 trainings there was nothing to forget."]
    change(store, alike, text="original")
    (task,) = read(store)
    assert not task.ranked
    assert {one.rank for one in task.rows} == {None}
    assert [one.text for one in task.rows[2:5]] == ["finetune", "perturbed_sign", "perturbed_sign:retain_weight=0"]
    for form in ("html", "latex", "markdown"):
        assert "Nothing to forget here" in render(store.root, form)


def test_over_forgetting_is_named(store: Store) -> None:
    def clearly_worse(record: dict[str, Any]) -> None:
        scores_of(record).update(forget=0.0)

    def plenty(record: dict[str, Any]) -> None:
        scores_of(record).update(forget=0.5)

    change(store, plenty)
    change(store, clearly_worse, text="scrub", training=1)
    (task,) = read(store)
    assert row(task, "scrub").notes == ["over-forgets in 2 of 6 runs"]
    assert row(task, "ssd").notes == []
    change(store, clearly_worse, text="scrub")
    assert row(read(store)[0], "scrub").notes == ["over-forgets"]


def test_refusals_and_divergences_are_shown_and_counted(store: Store) -> None:
    change(store, fail("n/a", "expected another task"), text="ssd")
    change(store, fail("diverged", "phase 'x' diverged"), text="scrub", training=2)
    (task,) = read(store)
    refused, diverged = row(task, "ssd"), row(task, "scrub")
    assert (refused.notes, refused.reasons, refused.rank) == (["n/a"], ["expected another task"], None)
    assert task.rows[-1] is refused
    assert (diverged.notes, diverged.count) == (["diverged in 2 of 6 runs"], f"2{TIMES}2")
    line = next(line for line in render(store.root, "markdown").splitlines() if line.startswith("|  | ssd |"))
    assert line.count("| n/a ") == 9 + 1  # every figure that other rows have, and the note
    page = render(store.root)
    assert "expected another task" in page
    assert "phase &#39;x&#39; diverged" in page


def test_a_count_is_right_when_trainings_have_different_numbers_of_revisions(store: Store) -> None:
    rewrite(store, chosen(store, text="scrub")[0], fail("diverged", "why"))
    found = row(read(store)[0], "scrub")
    assert found.count == "5 runs of 3 trainings"
    assert found.notes == ["diverged in 1 of 6 runs"]
    (line,) = [line for line in csv.DictReader(io.StringIO(render(store.root, "csv"))) if line["method"] == "scrub"]
    assert (line["runs"], line["trainings"]) == ("5", "3")
    assert "| 5 runs of 3 trainings | diverged in 1 of 6 runs |" in render(store.root, "markdown")
    assert '<td class="count">5 runs of 3 trainings</td>' in render(store.root)


def test_what_has_no_distance_to_the_reference_is_not_ranked_and_last(store: Store) -> None:
    def apart(record: dict[str, Any]) -> None:
        scores_of(record).update(average_gap=None, tug_of_war=None, tug_of_war_mia=None)

    best = next(one.text for one in read(store)[0].rows if one.rank == 1)
    change(store, apart, text=best)
    (task,) = read(store)
    last = task.rows[-1]
    assert (last.text, last.rank, last.figure("average_gap")) == (best, None, None)
    assert [one.rank for one in task.rows[2:-1]] == list(range(1, len(task.rows) - 2))
    line = [line for line in render(store.root, "markdown").splitlines() if line.startswith("|")][-1]
    assert line.startswith(f"|  | {best.replace('_', chr(92) + '_')} | n/a | ")
    own = next(name for name, one, place in identifiers(task) if one is last and place is None)
    drawn = [name for trace in figures(task)["cost"][0]["figure"]["data"] for name in trace.get("customdata", [])]
    assert own not in drawn


def test_beside_a_reference_that_diverged_nothing_is_ranked(store: Store) -> None:
    def apart(record: dict[str, Any]) -> None:
        scores_of(record).update(average_gap=None, tug_of_war=None, tug_of_war_mia=None)

    change(store, apart)
    change(store, fail("diverged", "the retraining diverged"), text="reference")
    (task,) = read(store)
    assert {one.rank for one in task.rows} == {None}
    assert {one.figure("average_gap") for one in task.rows} == {None}
    assert row(task, "reference").notes == ["diverged"]
    assert set(figures(task)) == {"tradeoff", "classes", "learning"}
    page = render(store.root)
    assert set(re.findall(r'data-rank="(\d*)"', page)) == {""}
    assert "the retraining diverged" in page
    assert {line["rank"] for line in csv.DictReader(io.StringIO(render(store.root, "csv")))} == {""}


def test_without_a_reference_there_is_a_table_all_the_same(store: Store) -> None:
    lose(store, text="reference")
    (task,) = read(store)
    assert task.notes == ["No result of the reference yet: distances to it are missing or partial."]
    assert scatter(task, "forget", "retain", ("x", "y")) is not None
    assert heat(task, change=True) is None
    assert "No result of the reference" in render(store.root)


def test_of_two_results_of_one_run_the_newer_counts(store: Store) -> None:
    def newer(record: dict[str, Any]) -> None:
        record["key"] = "zz"
        record["cost"]["finished"] = "2027-01-01T00:00:00+00:00"
        record["versions"]["torch"] = "3"
        scores_of(record)["forget"] = 0.123

    rewrite(store, chosen(store, text="scrub")[0], newer)
    found = row(read(store)[0], "scrub")
    assert len(found.runs) == 6
    assert [run.record.key for run in found.runs if run.values["forget"] == 0.123] == ["zz"]
    assert "torch 2 and 3" in render(store.root)


def test_tasks_that_differ_in_their_settings_alone_are_told_apart(store: Store) -> None:
    def longer(record: dict[str, Any]) -> None:
        record["config"]["training"]["epochs"] = 12

    change(store, longer, training=2)
    assert [one.title for one in read(store)] == [
        "fashion-mnist · class:0 · small-cnn · epochs=6",
        "fashion-mnist · class:0 · small-cnn · epochs=12",
    ]


def test_methods_as_near_as_a_second_reference_are_tied_and_said_to_be(tmp_path: Path) -> None:
    store = write_made_up(tmp_path / "out", references=2, methods=METHOD_NAMES)

    def moved(by: float) -> Callable[[dict[str, Any]], None]:
        def move(record: dict[str, Any]) -> None:
            scores_of(record).update({"forget": by, "retain": 0.5, "retain_test": 0.5, "membership": 0.5})
            scores_of(record)["average_gap"] = by / 4

        return move

    # Of the four scores that the gap is the mean of, one differs: by .04, .08, .06 of the second reference.
    change(store, moved(0.0), text="reference")
    for training, by in enumerate((0.04, 0.08, 0.06)):
        change(store, moved(by), text="reference 2", training=training)
    for text, by in (("finetune", 0.02), ("scrub", 0.08), ("ssd", 0.12)):
        change(store, moved(by), text=text)
    (task,) = read(store)
    assert task.resolution == pytest.approx(0.02)
    assert [one.role for one in task.rows[:3]] == ["original", "reference", "further reference"]
    assert {one.text: one.place for one in task.rows if one.text in METHOD_NAMES} == {
        **{"finetune": "1=", "scrub": "1=", "ssd": "3"},
        "perturbed_sign": next(one.place for one in task.rows if one.text == "perturbed_sign"),
    }
    words = "differ by a gap of up to 0.020. 2 methods are that near to the reference and tied with it (=)."
    assert words in task.footnote
    for form in ("html", "markdown", "latex"):
        assert words in render(store.root, form), form
    (written,) = [row for row in csv.DictReader(io.StringIO(render(store.root, "csv"))) if row["method"] == "scrub"]
    assert written["rank"] == "1"


def test_one_reference_has_no_resolution(store: Store) -> None:
    (task,) = read(store)
    assert task.resolution is None
    assert not any(one.tied for one in task.rows)
    assert task.footnote.startswith("There is no second reference")


@pytest.mark.parametrize("place", [{"download": True}, {"root": "/elsewhere"}])
def test_where_data_come_from_makes_no_other_task(store: Store, place: dict[str, Any]) -> None:
    change(store, lambda record: record["config"]["data"]["options"].update(place), training=2)
    (task,) = read(store)
    assert task.title == "fashion-mnist · class:0 · small-cnn"
    assert task.notes == []
    assert row(task, "scrub").count == f"3{TIMES}2"


# ---- what it comes to ----


def place_at(gap: float, seconds: float = 3.0, **scores: float) -> Callable[[dict[str, Any]], None]:
    def edit(record: dict[str, Any]) -> None:
        same = {"forget": 0.1, "retain": 0.9, "retain_test": 0.9, "membership": 0.5}
        scores_of(record).update({"average_gap": gap, **same, **scores})
        record["cost"]["seconds"] = seconds

    return edit


@pytest.fixture
def four(tmp_path: Path) -> Store:
    """The reference at a forget score of .1 and 60 s, doing nothing at a gap of .3, and three methods between."""
    store = write_made_up(tmp_path / "out", methods=("finetune", "scrub", "ssd"), references=2)
    change(store, place_at(0.0, 60.0), text="reference")
    change(store, place_at(0.02, forget=0.18), text="reference 2")  # one of the gap's four scores, by .08
    change(store, place_at(0.3, forget=0.9), text="original")
    for text, gap, seconds in (("finetune", 0.05, 12.0), ("scrub", 0.1, 3.0), ("ssd", 0.2, 120.0)):
        change(store, place_at(gap, seconds), text=text)
    return store


def test_the_best_method_comes_with_its_cost(four: Store) -> None:
    (said,) = summary(read(four)[0])
    assert said == (
        "Best: finetune, nearest to the reference, has a gap of 0.050 ± 0.000 and takes 12 s, 5 times as fast as "
        "retraining (60 s)."
    )
    assert said in render(four.root)
    assert said in render(four.root, "markdown")


def test_of_tied_methods_the_quickest_is_named(four: Store) -> None:
    change(four, place_at(0.01, 12.0), text="finetune")
    change(four, place_at(0.02, 3.0), text="scrub")
    (said,) = summary(read(four)[0])
    assert said.startswith("Best: finetune and scrub are tied, as near to the reference as another reference is.")
    assert "The quickest of them, scrub, has a gap of 0.020" in said
    change(four, place_at(0.1, 3.0), text="scrub")
    (said,) = summary(read(four)[0])
    assert said.startswith("Best: finetune, nearest to the reference")
    assert said.endswith("It cannot be told from a reference, the other methods can.")


def test_without_a_second_reference_no_tie_is_known(four: Store) -> None:
    lose(four, text="reference 2")
    assert summary(read(four)[0])[0].endswith("Whether the next ones are truly worse is not known.")


def test_what_is_slower_than_retraining_is_said_to_be(four: Store) -> None:
    change(four, place_at(0.05, 120.0), text="finetune")
    assert "takes 120 s, more than retraining, which takes 60 s" in summary(read(four)[0])[0]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (fail("diverged", "why"), "diverges"),
        (place_at(0.01, forget=0.0), "over-forgets, which marks the forgotten samples"),
        (place_at(0.3), "no nearer to the reference than doing nothing"),
    ],
)
def test_what_not_to_use_is_named_with_the_reason(four: Store, edit: Any, fault: str) -> None:
    change(four, place_at(0.0, forget=0.1), text="reference")
    change(four, edit, text="finetune")
    best, rest = summary(read(four)[0])
    among = " of the methods without a fault" if "over" in fault else ""  # it is ranked first all the same
    assert best.startswith(f"Best{among}: scrub")
    assert rest == f"Do not use: finetune ({fault})."


def test_a_fault_of_fewer_than_half_of_the_runs_is_no_ban(four: Store) -> None:
    change(four, fail("diverged", "why"), text="finetune", training=1)
    assert len(summary(read(four)[0])) == 1
    change(four, fail("diverged", "why"), text="finetune", training=2)
    assert summary(read(four)[0])[1] == "Do not use: finetune (diverges)."


def test_where_every_method_has_a_fault_none_is_best(four: Store) -> None:
    for text in ("finetune", "scrub", "ssd"):
        change(four, place_at(0.4), text=text)
    assert summary(read(four)[0]) == [
        "No method can be recommended: each has one of these faults.",
        "Do not use: finetune, scrub and ssd (no nearer to the reference than doing nothing).",
    ]


def test_without_a_reference_or_a_method_there_is_no_best(four: Store) -> None:
    def apart(record: dict[str, Any]) -> None:
        scores_of(record).update(average_gap=None)

    change(four, apart)
    lose(four, text="reference")
    (said,) = summary(read(four)[0])
    assert said.startswith("No method is best: without a reference's result")
    for text in ("finetune", "scrub", "ssd"):
        lose(four, text=text)
    assert summary(read(four)[0]) == ["No method has finished yet."]


def test_how_much_is_forgotten_is_said(four: Store) -> None:
    assert forgotten(read(four)[0]) == "6000 training images"
    change(four, lambda record: record.update(forget_samples=5900), training=1)
    assert forgotten(read(four)[0]) == "5900 to 6000 training images"
    groups = {"name": "patients", "touched": 3, "groups": 40}
    change(four, lambda record: record.update(forget_samples=1, forget_groups=groups))
    assert forgotten(read(four)[0]) == "1 training image of 3 of 40 patients"
    assert "Forgotten: 1 training image of 3 of 40 patients." in render(four.root)


def test_a_run_has_links_to_what_it_left_and_to_nothing_else(store: Store, tmp_path: Path) -> None:
    record, reference = chosen(store, text="scrub")[0], chosen(store, text="reference")[0]
    assert "safetensors" not in render(store.root)
    assert "receipts/" not in render(store.root)
    store.path("receipts", record.key, ".md").write_text("receipt")
    rewrite(store, reference, lambda values: values.update(needs={"reference": "weights of it"}))
    store.path("tensors", "weights of it", ".safetensors").write_bytes(b"")
    for target in (store.root / "report.html", tmp_path / "else where" / "mine.html"):
        page = write_report(store.root, out=target).read_text()
        links = {href for href in re.findall(r'href="([^"#:]+)"', page) if href != "data:,"}
        kinds = {href.split("/")[-2] for href in links}
        assert kinds == {"receipts", "results", "tensors"}
        assert sum("receipts" in href for href in links) == sum("tensors" in href for href in links) == 1
        for href in links:
            assert (target.parent / unquote(href)).is_file(), href


def test_where_a_forgotten_class_went_is_shown_beside_the_reference(store: Store) -> None:
    assert confusion(read(store)[0]) == []  # as of records of earlier versions
    assert "Where the forgotten class went" not in render(store.root)
    change(store, lambda record: record.update(confusion={"0": {"3": 30, "6": 70}}), text="reference")
    change(store, lambda record: record.update(confusion={"0": {"0": 40, "1": 40, "2": 20}}), text="scrub", training=0)
    change(store, lambda record: record.update(confusion={"0": {"1": 50, "2": 50}}), text="scrub", training=1)
    (table,) = confusion(read(store)[0])
    assert table.title == "0 T-shirt"
    assert table.heads == ["0 T-shirt", "6 Shirt", "1 Trouser", "2 Pullover", "3 Dress"]
    assert [row.text for row, _ in table.rows] == ["reference", "scrub"]
    assert table.rows[0][1] == pytest.approx([0, 0.7, 0, 0, 0.3])
    assert table.rows[1][1] == pytest.approx([0.2, 0, 0.45, 0.35, 0])
    assert ">0.450</td>" in render(store.root)
    many = {str(other): 10 for other in range(10)}
    change(store, lambda record: record.update(confusion={"0": many, "4": {"4": 1}}), text="ssd")
    (table,) = confusion(read(store)[0])  # class 4 is not to be forgotten
    assert table.heads[-1] == "others"
    for one, shares in table.rows:
        assert len(shares) == len(table.heads), one.text
        assert sum(shares) == pytest.approx(1)


def test_each_group_is_scored_beside_the_reference(store: Store) -> None:
    assert group_table(read(store)[0]) is None
    assert "Groups of the data" not in render(store.root)

    def groups(here: float, unseen: float | None) -> Callable[[dict[str, Any]], None]:
        b = {"forgotten": 5, "train": 9, "train_score": here, "test": 3 if unseen else 0, "test_score": unseen}
        a = {**b, "forgotten": 0, "train_score": 1.0}
        return lambda record: record.update(group_scores={"scanner B": b, "scanner A": a})

    change(store, groups(0.2, None), text="reference")
    for training, score in enumerate((0.3, 0.4, 0.8)):
        change(store, groups(score, score / 2), text="scrub", training=training)
    table = group_table(read(store)[0])
    assert table is not None
    assert table.heads == [("scanner B", 5, 9), ("scanner A", 0, 9)]
    assert [row.text for row, _ in table.rows] == ["reference", "scrub"]
    assert table.rows[0][1] == [(pytest.approx(0.2), None), (1.0, None)]
    assert table.rows[1][1][0] == pytest.approx((0.5, 0.25))
    page = render(store.root)
    assert "scanner B ✕<small>5 of 9 forgotten</small>" in page
    assert ">0.500<small>held-out 0.250</small></td>" in page


def page_values(store: Store) -> Any:
    return json.loads(re.search(r'id="values">(.*?)</script>', render(store.root), re.DOTALL).group(1))


def test_the_losses_of_a_row_stand_beside_the_references_of_the_same_training(store: Store) -> None:
    assert not any("losses" in point for point in page_values(store)["points"].values())
    for training in (0, 1):
        for text, losses in (("reference", [1.0 + training, 2.0]), ("scrub", [0.1 + training, 0.2])):
            change(store, lambda r, held=losses: r.update(forget_losses=held), text=text, training=training)
    points = page_values(store)["points"]
    found = {
        point["who"]: point["losses"] for point in points.values() if point["label"] == "scrub" and "losses" in point
    }
    assert found == {
        f"n = 3{TIMES}2": [[1.0, 2.0], [0.1, 0.2]],
        **{f"training 0, revision {one}": [[1.0, 2.0], [0.1, 0.2]] for one in (0, 1)},
        **{f"training 1, revision {one}": [[2.0, 2.0], [1.1, 0.2]] for one in (0, 1)},
    }
    (own,) = [point for point in points.values() if point["label"] == "ssd" and point["who"].startswith("n")]
    assert list(own["classes"])[:2] == ["0 T-shirt", "1 Trouser"]


# ---- tables ----


def test_csv_holds_the_unrounded_figures(store: Store) -> None:
    change(store, fail("n/a", "why"), text="ssd")
    text = render(store.root, "csv")
    titles = text.splitlines()[0].split(",")
    assert len(set(titles)) == len(titles)  # else who reads them by name loses one
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["method"] for line in lines[:2]] == ["original", "reference"]
    assert {line["rule"] for line in lines} == {"class:0"}
    assert {line["task"] for line in lines} == {"fashion-mnist · class:0 · small-cnn"}
    (task,) = read(store)
    assert len(lines) == len(task.rows)
    for line, one in zip(lines, task.rows, strict=True):
        found = one.figure("forget_test")
        if found is None:
            assert line["forget_test"] == line["forget_test_low"] == ""
        else:
            assert float(line["forget_test"]) == found.mean
            assert float(line["forget_test_high"]) - float(line["forget_test_low"]) == pytest.approx(2 * found.half)
    assert lines[0]["seconds"] == ""  # doing nothing takes no time


def test_csv_tells_tasks_apart_that_differ_in_their_settings_alone(store: Store) -> None:
    change(store, lambda record: record["config"]["data"]["options"].update(train_size=100), training=1)
    change(store, lambda record: record["config"]["training"].update(epochs=12), training=2)
    lines = list(csv.DictReader(io.StringIO(render(store.root, "csv"))))
    assert len({line["task"] for line in lines}) == 3
    assert {(line["data"], line["rule"], line["model"]) for line in lines} == {
        ("fashion-mnist", "class:0", "small-cnn")
    }
    assert len({(line["task"], line["method"]) for line in lines}) == len(lines)


def test_texts_cannot_break_a_table(tmp_path: Path) -> None:
    store = write_made_up(tmp_path / "out", methods=("finetune",), extra=[(HOSTILE, {})])
    table = [line for line in render(store.root, "markdown").splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert any(r"a\|b\_\{\$%\} \<script\>" in line for line in table)
    lines = render(store.root, "latex").splitlines()
    hostile = next(line for line in lines if line.startswith("a|b"))
    assert hostile.startswith(r"a|b\_\{\$\%\} \textless{}script\textgreater{}")
    header = lines[lines.index(r"\toprule") + 1]
    assert hostile.count(" & ") == header.count(" & ")
    assert hostile.endswith(r" \\")
    assert HOSTILE in [line["method"] for line in csv.DictReader(io.StringIO(render(store.root, "csv")))]


def test_latex_environments_are_closed_and_ascii_but_for_text(store: Store) -> None:
    text = render(store.root, "latex")
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended) == ["table", "tabular"]
    assert text.isascii()
    assert r"$\pm$" in text


# ---- charts ----


def resolved(figure: Any) -> Any:
    """As the page makes it: with colours in place of their names."""
    text = json.dumps(figure, allow_nan=False)
    scale = '[[0, "#ffffff"], [1, "#000000"]]'
    text = text.replace('"@share"', scale).replace('"@change"', scale)
    return json.loads(re.sub(r'"@(ink|faint|grid|surface|accent)"', '"#123456"', text))


def test_every_chart_is_a_valid_plotly_figure_without_unknown_colours(store: Store) -> None:
    import plotly.graph_objects as go

    (task,) = read(store)
    found = figures(task)
    assert list(found) == ["tradeoff", "cost", "classes", "learning"]
    assert [view["name"] for view in found["tradeoff"]][1:] == [
        "forget and retain",
        "forget and test",
        "membership and test",
    ]
    known = {name for name, _, _ in identifiers(task)}
    for views in found.values():
        for view in views:
            plain = resolved(view["figure"])
            assert '"@' not in json.dumps(plain)
            go.Figure(plain)  # raises on what plotly does not know
            ids = {one for trace in plain["data"] for one in np.ravel(trace.get("customdata", [])) if one is not None}
            assert ids <= known


def test_the_seconds_are_labelled_with_numbers_that_read(store: Store) -> None:
    axis = figures(read(store)[0])["cost"][0]["figure"]["layout"]["xaxis"]
    assert len(axis["tickvals"]) >= 3
    assert [float(text) for text in axis["ticktext"]] == axis["tickvals"]
    assert {text.strip("0.")[0] for text in axis["ticktext"]} <= set("125")
    assert all(axis["range"][0] <= math.log10(tick) <= axis["range"][1] for tick in axis["tickvals"])


def test_each_method_looks_the_same_everywhere_and_like_no_other() -> None:
    every = looks(METHODS)
    assert len(set(every.values())) == len(METHODS)
    assert looks(["scrub", "finetune"]) == {name: every[name] for name in ("finetune", "scrub")}
    assert looks(["scrub", "unknown"])["scrub"] == every["scrub"]


def test_the_rings_are_the_methods_that_no_other_beats_in_both_gaps(store: Store) -> None:
    (task,) = read(store)
    figure = scatter(task, "forget", "retain_test", ("x", "y"))
    (ring,) = [trace for trace in figure["data"] if trace.get("name") == "Pareto front"]
    theirs = {r.config["seeds"]["training"]: scored(r) for r in chosen(store, text="reference")}
    gaps: dict[str, list[tuple[float, float]]] = {}
    for record in store.records():
        mine, ideal = scored(record), theirs[record.config["seeds"]["training"]]
        text = record.config["method"]["text"]
        if text not in ("original", "reference"):
            gaps.setdefault(text, []).append(tuple(abs(mine[n] - ideal[n]) for n in ("forget", "retain_test")))
    spots = {text: np.mean(pairs, axis=0) for text, pairs in gaps.items()}
    best = {a for a in spots if not any((spots[b] <= spots[a]).all() and (spots[b] < spots[a]).any() for b in spots)}
    where = {row(task, text).figure("forget").mean for text in best}
    assert set(ring["x"]) == where
    assert 0 < len(best) < len(spots)


def test_a_tradeoff_curve_is_joined_in_the_order_of_its_knob(store: Store) -> None:
    (task,) = read(store)
    figure = scatter(task, "forget", "retain", ("x", "y"))
    (line,) = [t for t in figure["data"] if t.get("name") == "perturbed_sign" and t["mode"] == "lines+markers"]
    texts = {name: one.text for name, one, place in identifiers(task) if place is None}
    assert [None if name is None else texts[name] for name in line["customdata"]] == [
        *(f"perturbed_sign:retain_weight={weight}" for weight in ("0", "0.3", "1", "3", "10")),
        None,
        "perturbed_sign",
        None,
    ]
    points = [t for t in figure["data"] if t.get("legendgroup") == "scrub" and t["mode"] == "markers"]
    assert len(points[0]["x"]) == 6  # every run


def test_the_heat_map_shows_means_and_differences(store: Store) -> None:
    (task,) = read(store)
    whole, change_ = heat(task)["data"][0], heat(task, change=True)["data"][0]
    assert whole["y"][:2] == ["original (do nothing)", "reference (retrained)"]
    assert "reference (retrained)" not in change_["y"]
    means: dict[str, list[float]] = {}
    for record in store.records():
        means.setdefault(record.config["method"]["text"], []).append(scored(record)["per_class"]["3"])
    scrub, ideal = np.mean(means["scrub"]), np.mean(means["reference"])
    assert whole["z"][whole["y"].index("scrub")][3] == pytest.approx(scrub, abs=1e-4)
    assert change_["z"][change_["y"].index("scrub")][3] == pytest.approx(scrub - ideal, abs=1e-4)
    assert whole["x"][:2] == ["0 T-shirt ✕", "1 Trouser"]


def test_learning_curves_of_a_sequence_go_on_from_request_to_request(store: Store) -> None:
    def two_requests(record: dict[str, Any]) -> None:
        point = {"planned": 4, "phase": "x", "retain": 0.9, "held_out": None}
        record["learning_curve"] = [
            {"request": request, "step": step, "forget": 1 - request / 2 - step / 8, **point}
            for request in (0, 1)
            for step in (0, 2, 4)
        ]

    change(store, two_requests, text="scrub")
    figure = learning(read(store)[0])
    curve = next(t for t in figure["data"] if t["name"] == "scrub")
    assert curve["x"] == [0, 0.25, 0.5, 0.75, 1]
    # At one half the second request begins where the first ended: the later look counts.
    assert curve["y"] == [1, 0.75, 0.5, 0.25, 0]
    held_out = [t for t in figure["data"] if t["name"] == "scrub"][2]
    assert held_out["x"] == []


def test_charts_without_data_are_left_out(store: Store) -> None:
    def bare(record: dict[str, Any]) -> None:
        record["learning_curve"] = []
        scores_of(record)["per_class"] = None

    change(store, bare)
    assert list(figures(read(store)[0])) == ["tradeoff", "cost"]


def test_hostile_texts_are_plain_text_in_charts(tmp_path: Path) -> None:
    store = write_made_up(tmp_path / "out", methods=(), extra=[("<b>x</b>", {})], trainings=1, revisions=1)
    for views in figures(read(store)[0]).values():
        text = json.dumps([view["figure"] for view in views])
        assert "<b>x</b>" not in text
        assert "&lt;b&gt;x&lt;/b&gt;" in text


# ---- pictures ----


def test_picture_strips_show_what_agrees_what_is_too_much_and_what_is_missing(tmp_path: Path) -> None:
    store = write_made_up(tmp_path / "out", methods=("finetune",), trainings=2, revisions=1)
    assert strips(read(store)[0], store) == []
    for record in chosen(store, text="reference"):
        store.write(record, {"images": torch.zeros(1, 1, 2, 2, dtype=torch.uint8)})
    assert [strip.label for strip in strips(read(store)[0], store)] == ["image"]  # as of class labels
    mask = torch.tensor([[[1, 1], [0, 0]]], dtype=torch.uint8)
    wrong = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.uint8)
    image = torch.tensor([[[[255, 0], [0, 7]]]], dtype=torch.uint8)
    for record in list(store.records()):
        reference = record.config["method"]["name"] == "reference"
        extra = {"images": image, "masks": mask} if reference else {}
        store.write(record, {"predicted": mask if reference else wrong, **extra})
    found = {strip.label: strip for strip in strips(read(store)[0], store)}
    assert list(found) == ["image", "true mask", "original (do nothing)", "reference (retrained)", "finetune"]

    def pixels(label: str) -> list[list[tuple[int, ...]]]:
        data = base64.b64decode(found[label].source.removeprefix("data:image/png;base64,"))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tolist()

    light, orange, blue = [237, 237, 237], [0xD5, 0x5E, 0x00], [0x00, 0x72, 0xB2]
    assert pixels("finetune") == [[light, blue], [orange, [0, 0, 0]]]
    assert pixels("reference (retrained)") == [[light, light], [[0, 0, 0]] * 2]
    assert pixels("image") == [[[255] * 3, [0] * 3], [[0] * 3, [7] * 3]]
    assert found["image"].width == 128
    assert 'alt="finetune: forgotten images in a row"' in render(store.root)


# ---- what a real run leaves, and how to have it again ----


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    suite = {
        "name": "real",
        "seeds": {"training": [0, 1]},
        "learning_curve": True,
        "matrix": {
            "data": {"name": "digits", "options": {"train_size": 100}},
            "forget": [["class:1", "class:2"]],
            "models": "mlp",
            "training": {"epochs": 1},
            "methods": [
                "finetune:epochs=1",
                {"name": "perturbed_sign", "options": {"search": {"radius": 0.2}, "steps": 2}},
            ],
        },
    }
    # What the runner does, in this process: a worker would take seconds to start.
    store, products = Store(folder), {}
    for node in plan(parse_suite(suite)):
        product = execute(node, {role: products[key] for role, key in node.needs.items()})
        products[node.key] = product
        store.write(product.record, product.tensors)
    return folder


def test_a_row_is_had_again_by_its_suite_and_command(real: Path) -> None:
    (task,) = tasks(rows(real))
    assert [one.role for one in task.rows] == ["original", "reference", "method", "method"]
    for one in task.rows:
        suite = parse_suite(yaml.safe_load(suite_text(suite_of(task, one))))
        words = command(one).split()
        nodes = plan(suite)
        if one.role != "method":
            nodes = select(nodes, words[words.index("--only") + 1])
        else:
            assert "--only" not in words
        assert {run.record.key for run in one.runs} <= {node.key for node in nodes}, one.text


def test_what_a_real_run_takes_forgotten_classes_for_and_its_losses_are_those_of_its_model(real: Path) -> None:
    store = Store(real)
    bundle = load("digits", train_size=100)
    for record in store.records():
        if record.kind != "result":
            continue
        scores = record.evaluations[0].scores
        right = sum(counts.get(label, 0) for label, counts in record.confusion.items())
        every = sum(sum(counts.values()) for counts in record.confusion.values())
        assert set(record.confusion) == {"1", "2"}
        assert every == scores["sizes"]["forget_test"]
        assert right / every == pytest.approx(scores["forget_test"])
        assert len(record.forget_losses) == min(100, record.forget_samples)
        if record.config["method"]["name"] == "reference":
            network = Blueprint("mlp", bundle.num_classes, 1)().eval()
            network.load_state_dict(store.tensors(record.needs["reference"]))
            x, y = load_tensors(bundle.train)
            x, y = (torch.cat([part[y == label] for label in (1, 2)]) for part in (x, y))
            with torch.no_grad():
                losses = torch.nn.functional.cross_entropy(network(x).double(), y, reduction="none")
            # As a set: how the requests' samples are put one behind another is not this test's business.
            assert sorted(record.forget_losses) == pytest.approx(sorted(losses.tolist()), rel=1e-3)
            pictures = store.tensors(record.key)
            assert set(pictures) == {"images"}
            assert pictures["images"].shape[0] == 6


def test_what_a_real_run_leaves_is_shown(real: Path) -> None:
    page = render(real)
    assert "perturbed_sign:search={radius=0.2}:steps=2" in page
    assert "class:1, then class:2" in page
    (task,) = tasks(rows(real))
    assert set(figures(task)) == {"tradeoff", "cost", "classes", "learning"}


# ---- files and command ----


def test_one_suite_can_be_shown_alone(store: Store) -> None:
    def stray(record: dict[str, Any]) -> None:
        record["key"] = "stray"
        record["config"]["method"]["text"] = "of_another_suite"

    rewrite(store, chosen(store, text="scrub")[0], stray)
    assert "of_another_suite" in render(store.root, "csv")
    assert "of_another_suite" not in render(store.root, "csv", "made-up")
    with pytest.raises(ValueError, match="expected suite to be one of"):
        render(store.root, suite="other")


def test_a_report_of_16_runs_is_at_most_1_5_megabytes(tmp_path: Path) -> None:
    store = write_made_up(tmp_path / "out", methods=METHOD_NAMES[:-1], trainings=2, revisions=2)
    assert sum(1 for _ in store.records()) == 16
    assert len(render(store.root).encode()) <= 1_500_000


def test_a_report_is_the_same_twice_and_200_runs_are_below_4_megabytes(tmp_path: Path) -> None:
    store = write_made_up(tmp_path / "out", methods=METHODS)
    assert sum(1 for _ in store.records()) >= 190
    page = render(store.root)
    assert len(page.encode()) < 4_000_000
    assert render(store.root) == page


def test_a_crash_leaves_the_old_report(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(store.root, format="csv")
    assert path == store.root / "report.csv"
    before = path.read_text()
    change(store, fail("n/a", "why"), text="ssd")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(store.root, format="csv")
    assert path.read_text() == before
    assert [p.name for p in store.root.glob(".*")] == []


def list_in_suite(store: Store, key: str, name: str = "made-up") -> None:
    """List a node in a suite of the folder."""
    path = store.path("suites", name)
    suite = read_json(path) or {"name": name, "about": "", "nodes": []}
    suite["nodes"].append({"key": key, "kind": "result", "name": key})
    write_json(suite, path)


def run_command(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_each_format(store: Store, tmp_path: Path) -> None:
    for form, name in zip(("html", *TABLES), ("report.html", "report.tex", "report.csv", "report.md"), strict=True):
        found = run_command(store.root, "--format", form)
        assert found.exit_code == 0, found.output
        assert (store.root / name).read_text() == render(store.root, form)
    target = tmp_path / "new" / "mine.md"
    assert run_command(store.root, "--format", "markdown", "--out", target).exit_code == 0
    assert target.is_file()


def test_curves_are_written_for_each_task(store: Store, tmp_path: Path) -> None:
    found = run_command(store.root, "--format", "curves", "--out", tmp_path)
    assert found.exit_code == 0, found.output
    of_tasks = tasks(rows(store.root))
    for task in of_tasks:
        name = slug(task.title)
        assert {path.suffix for path in tmp_path.glob(f"{name}-forget-retain.*")} >= {".csv", ".png", ".svg", ".pdf"}
        with (tmp_path / f"{name}-runs.csv").open() as lines:
            written = list(csv.DictReader(lines))
        judged = [one for row in task.rows if row.role == "method" for run in row.runs for one in run.flat]
        assert len(written) == len(judged)
        assert sorted(line["forget"] for line in written if line["forget"]) == sorted(
            str(one.scores.forget) for one in judged if one.scores is not None
        )
    assert len({slug(task.title) for task in of_tasks}) == len(of_tasks)
    assert FORMATS == ("html", "latex", "csv", "markdown", "curves")


def test_curves_say_what_the_page_says(store: Store) -> None:
    noise = Random(3)

    def evaluate_again(record: dict[str, Any]) -> None:
        again = [json.loads(json.dumps(record["evaluations"][0])) for _ in range(3)]
        for seed, one in enumerate(again):
            one["seed"] = seed
            one["scores"]["membership"] = noise.uniform(0.45, 0.55)
        record["evaluations"] = again
        record["config"]["seeds"]["evaluation"] = [0, 1, 2]

    change(store, evaluate_again)
    lose(store, text="scrub", training=2)
    store.forget(chosen(store, text="scrub")[0].key)  # three runs of two trainings
    (task,) = read(store)
    (curves,) = curves_of(rows(store.root)).values()
    compared = 0
    for curve in curves:
        for stop in curve.points("membership", "retain_test"):
            text = curve.name if curve.knob is None else f"{curve.name}:{curve.knob}={stop.value:g}"
            one = row(task, text)
            assert stop.x == one.figure("membership")
            assert stop.y == one.figure("retain_test")
            assert (stop.gap_x, stop.gap_y) == (one.gap("membership"), one.gap("retain_test"))
            compared += 1
    assert compared == 4 + 5
    assert row(task, "scrub").figure("membership").n == 3
    (single,) = [one for one in task.rows if one.text == "ssd"]
    runs = next(curve for curve in curves if curve.name == "ssd").runs
    assert len(runs) == len(single.runs) == 6


def test_no_two_tasks_write_to_the_same_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(store, lambda record: record["config"]["data"]["options"].update(member="A"), training=1)
    change(store, lambda record: record["config"]["data"]["options"].update(member="a"), training=2)
    names: list[str] = []

    def note(curves: object, folder: Path, name: str, **_: object) -> list[Path]:
        names.append(name)
        return [folder / name]

    monkeypatch.setattr("benchmarks.report.curves.save_tradeoff", note)
    write_report(store.root, format="curves", out=tmp_path)
    assert len(set(names)) == len(names) == 3


def test_a_mistake_is_one_line_and_exit_code_2(store: Store, tmp_path: Path) -> None:
    for arguments, message in (
        ([store.root, "--format", "pdf"], "expected format to be one of"),
        ([store.root, "--suite", "quick"], "expected suite to be one of"),
        ([tmp_path / "nowhere"], "expected dir to be a folder with results of `unlearn-kit run`, but got"),
    ):
        found = run_command(*arguments)
        assert found.exit_code == 2
        assert found.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "nowhere").exists()


def test_failures_are_listed_with_their_traceback(store: Store) -> None:
    list_in_suite(store, "f")
    store.write_failure("f", {"name": "a/b", "config": {}, "reason": "Oops: <x>", "traceback": "line & line"})
    page = render(store.root)
    assert "What failed" in page
    assert "Oops: &lt;x&gt;" in page
    assert "line &amp; line" in page


def test_only_failures_that_a_run_of_the_suite_tries_again_are_listed(store: Store) -> None:
    list_in_suite(store, "other", "z-other")
    for key in ("other", "no longer planned"):
        store.write_failure(key, {"name": key, "config": {}, "reason": f"reason of {key}", "traceback": ""})
    every = render(store.root)
    assert "reason of other" in every
    assert "reason of no longer planned" not in every
    alone = render(store.root, suite="made-up")
    assert "What failed" not in alone
    assert "reason of" not in alone


# ---- folders that are still growing ----


def test_a_run_that_has_only_begun_is_shown(store: Store, tmp_path: Path) -> None:
    for record in list(store.records()):
        if record.config["method"]["name"] not in ("original", "reference"):
            store.forget(record.key)
    list_in_suite(store, "begun", "z-begun")
    for names, note in ((["original", "reference"], None), (["original"], "No result of the reference yet")):
        (task,) = read(store)
        assert [one.role for one in task.rows] == names
        assert figures(task) == {}
        for form in ("html", *TABLES):
            text = render(store.root, form, "made-up")
            assert note is None or form == "csv" or note in text
        with pytest.raises(ValueError, match="expected dir to hold a finished run of at least one method, but got"):
            write_report(store.root, format="curves", out=tmp_path / "curves")
        lose(store, text="reference")
    lose(store)
    for suite in (None, "made-up", "z-begun"):
        with pytest.raises(ValueError, match="expected dir to be a folder with results of `unlearn-kit run`, but got"):
            render(store.root, suite=suite)


def test_a_run_that_is_half_finished_is_shown(store: Store) -> None:
    whole = render(store.root, "csv")
    lose(store, training=2, text="ssd")
    lose(store, training=1, text="original")
    lose(store, training=2, text="reference")
    lose(store, text="finetune")
    (task,) = read(store)
    assert row(task, "ssd").count == f"2{TIMES}2"
    assert row(task, "original").count == row(task, "reference").count == "2"
    assert "finetune" not in {one.text for one in task.rows}
    for form in ("html", *TABLES):
        assert render(store.root, form, "made-up")
    # What is finished says the same as it does in the end.
    scrub = {
        line["forget_test"]
        for text in (whole, render(store.root, "csv"))
        for line in csv.DictReader(io.StringIO(text))
        if line["method"] == "scrub"
    }
    assert len(scrub) == 1
    (curves,) = curves_of(rows(store.root)).values()
    assert {run.training_seed for curve in curves for run in curve.runs} == {0, 2}


# ---- figures that are none ----


def test_incomplete_files_are_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = write_made_up(tmp_path, trainings=1, revisions=1, methods=["finetune", "scrub"])
    whole = {key: path for path in (store.root / "results").glob("*.json") if (key := path.stem)}
    by_method = {read_json(path)["config"]["method"]["text"]: path for path in whole.values()}  # type: ignore[index]
    broken = read_json(by_method["scrub"])
    assert broken is not None
    del broken["config"]["seeds"]["evaluation"]
    write_json(broken, by_method["scrub"])
    suite = read_json(store.path("suites", "made-up"))
    assert suite is not None
    suite["nodes"] += [{"name": "without a key"}, "no node", {"key": "a" * 24}]
    write_json(suite, store.path("suites", "made-up"))
    write_json({"name": "without a reason"}, store.path("failures", "a" * 24))
    text = render(tmp_path)
    assert "finetune" in text
    assert str(by_method["scrub"]) in caplog.text
    assert "config.seeds.evaluation: expected a value, but got none" in caplog.text
    assert "without a reason" not in text
    (task,) = tasks(rows(tmp_path))
    assert [row.text for row in task.rows] == ["original", "reference", "finetune"]


def test_no_number_of_the_page_is_not_finite(store: Store) -> None:
    best = next(one.text for one in read(store)[0].rows if one.rank == 1)
    for path in sorted((store.root / "results").glob("*.json")):
        record = json.loads(path.read_text())
        if record["config"]["method"]["text"] == best:
            scores_of(record).update(average_gap=math.nan, forget=math.inf, membership=-math.inf)
            scores_of(record)["per_class"]["3"] = math.nan
            record["cost"].update(seconds=math.inf, peak_memory_bytes=math.inf)
            for point in record["learning_curve"]:
                point["retain"] = math.nan
            # The store writes no such numbers, but a JSON file from elsewhere may hold them.
            path.write_text(json.dumps(record, allow_nan=True))
            assert "NaN" in path.read_text()
    (task,) = read(store)
    last = task.rows[-1]
    assert (last.text, last.rank) == (best, None)
    assert {last.figure(name) for name in ("average_gap", "forget", "membership", "seconds", "memory")} == {None}
    assert last.figure("retain_test") is not None
    page = render(store.root)
    for number in re.findall(r'data-v="([^"]+)"', page):
        assert math.isfinite(float(number))
    text = re.search(r'id="values">(.*?)</script>', page, re.DOTALL).group(1)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(text, parse_constant=refuse)
    cells = {cell[1] for point in data["points"].values() for cell in point["values"]}
    assert "n/a" in cells
    assert not {cell for cell in cells if re.search("nan|inf", cell)}
    said = json.dumps(data["charts"])
    assert not re.search(r"\b(nan|inf)\b", said)
    for form in TABLES:
        assert not re.search(r"\b(nan|inf)\b", render(store.root, form))


def test_a_figure_that_no_run_has_is_no_column(store: Store) -> None:
    assert "peak MiB" in render(store.root)

    def unknown(record: dict[str, Any]) -> None:
        record["cost"]["peak_memory_bytes"] = None

    change(store, unknown)
    assert "peak MiB" not in render(store.root)


def test_memory_is_in_the_unit_that_its_heading_says(store: Store) -> None:
    def three(record: dict[str, Any]) -> None:
        record["cost"]["peak_memory_bytes"] = 3 * 1024 * 1024

    change(store, three)
    (column,) = [column for column in COLUMNS if column.name == "memory"]
    found = row(read(store)[0], "scrub").figure("memory")
    assert (column.title, column.text(found)) == ("peak MiB", "3 ± 0")


def test_a_request_that_came_back_is_marked_in_the_page_and_noted_in_every_table(store: Store) -> None:
    def after(*steps: tuple[float | None, ...]) -> list[dict[str, Any]]:
        rules = ("class:0", "class:5", "class:0")
        return [
            {
                "after": rules[place],
                "scores": [
                    {"rule": rule, "samples": 40, "forget": score, "membership": 0.5}
                    for rule, score in zip(rules, row, strict=False)
                ],
            }
            for place, row in enumerate(steps)
        ]

    came_back = after((0.10,), (0.12, 0.0), (0.60, 0.02, None))
    stayed = after((0.10,), (0.0, 0.2), (0.2, 0.25, 0.0))
    change(store, lambda record: record.update(requests=came_back), text="scrub", training=0)
    change(store, lambda record: record.update(requests=stayed), text="scrub", training=1)
    change(store, lambda record: record.update(requests=stayed), text="ssd")
    found = {row.text: row for task in tasks(rows(store.root)) for row in task.rows}
    assert [note for note in found["scrub"].notes if "relapse" in note] == ["relapse of class:0 (1) in 2 of 4 runs"]
    assert not [note for note in found["ssd"].notes if "relapse" in note]
    cells = standings([run.record for run in found["scrub"].ok])
    assert list(cells) == ["class:0 (1)", "class:5", "class:0 (3)"]
    assert [cell and cell.forget for cell in cells["class:0 (1)"]] == pytest.approx([0.1, 0.06, 0.4])
    assert [cell and cell.forget for cell in cells["class:0 (3)"]] == [None, None, 0.0]
    for name in TABLES:
        assert "relapse of class:0" in render(store.root, name) or name == "latex"
    page = render(store.root)
    assert page.count('class="relapse"') == 1
    assert "relapse in 2 of 4 runs" in page
    assert page.count(">after class:0 (3)<") == 1


@pytest.mark.parametrize(
    ("then", "now", "samples", "expected"),
    [(0.27, 0.47, 100, True), (0.27, 0.47, 10, False), (0.5, 0.515, 10**6, False), (0.47, 0.27, 100, False),
     (None, 0.5, 100, False), (0.1, None, 100, False), (0.0, 1.0, None, False), (0.0, 0.2, 60, True)],
)  # fmt: skip
def test_a_rise_is_a_relapse_beyond_the_margin_of_the_samples(
    then: float | None, now: float | None, samples: int | None, expected: bool
) -> None:
    assert relapsed({"forget": then}, {"forget": now, "samples": samples}) is expected
