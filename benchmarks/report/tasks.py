"""Rows by task: what is forgotten of which data by which network, ranked by distance to the reference."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unlearn_kit.judging import within

from ..analysis.resolution import in_words, places, resolution_of
from ..analysis.rows import BARE, ResultRow, is_further, name_of, task_of, titles
from .rows import FURTHER, ReportRow, ReportRun


@dataclass
class ReportTask:
    """One task: data, what is forgotten, network and training.

    Attributes:
        name: Its name in identifiers.
        title: Its name for people, which no other task of the report has.
        config: What was asked.
        rows: Original, reference, other references and yardsticks, then the methods by rank.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    rows: list[ReportRow]

    @property
    def data(self) -> str:
        """Return the data set's name."""
        return str(self.config["data"]["name"])

    @property
    def segments(self) -> bool:
        """Return whether it is about masks."""
        return any(one.kind == "segmentation" for run in self._runs for one, _ in run.pairs)

    @property
    def _runs(self) -> list[ReportRun]:
        return [run for row in self.rows for run in row.ok]

    @property
    def score(self) -> str:
        """Return what the score is."""
        return "IoU" if self.segments else "accuracy"

    @property
    def held_out(self) -> bool:
        """Return whether there are held-out data like the forgotten."""
        return any(one.sizes["forget_test"] for run in self._runs for one, _ in run.pairs)

    @property
    def class_names(self) -> list[str]:
        """Return the names of the classes, in order; none where no run tells them."""
        return next((list(run.record.class_names) for run in self._runs if run.record.class_names), [])

    @property
    def forgotten(self) -> set[int]:
        """Return the classes that are to be forgotten as a whole or in part."""
        rules = (rule.split(":") for rule in self.config["forget"])
        return {int(parts[1]) for parts in rules if parts[0] in ("class", "fraction")}

    def class_title(self, label: int) -> str:
        """Return a class for people: its index, and its name where it has one."""
        names = self.class_names
        name = names[label] if label < len(names) else ""
        return str(label) if name in ("", str(label)) else f"{label} {name}"

    def row(self, role: str) -> ReportRow | None:
        """Return the row of the original or the reference."""
        return next((row for row in self.rows if row.role == role), None)

    @cached_property
    def pointless(self) -> tuple[int, int]:
        """Return in how many trainings there was nothing to forget, and of how many."""
        original = self.row("original")
        runs = [] if original is None else [run for run in original.ok if any(theirs for _, theirs in run.pairs)]
        return sum(run.pointless for run in runs), len(runs)

    @cached_property
    def resolution(self) -> float | None:
        """Return how far further references are from the first, at most; None where there are none."""
        return resolution_of(one for run in self._runs for one in run.flat)

    @property
    def ranked(self) -> bool:
        """Return whether ranking would rank more than noise."""
        few, all_of_them = self.pointless
        return not (all_of_them and few == all_of_them)

    @property
    def notes(self) -> list[str]:
        """Return what a reader must know about the whole of it."""
        said = []
        few, several = self.pointless
        if not self.ranked:
            said.append(
                "Nothing to forget here: on the forget set the original and the retrained reference cannot be told "
                "apart, so the methods are not ranked."
            )
        elif few:
            said.append(f"In {few} of {several} trainings there was nothing to forget.")
        missing = [role for role in BARE if (row := self.row(role)) is None or not row.ok]
        if missing:
            said.append(f"No result of the {' and the '.join(missing)} yet: distances to it are missing or partial.")
        if len({run.seeds[0] for run in self._runs}) == 1:
            said.append("One training only: intervals, where there are any, speak of this one original.")
        return said

    @property
    def footnote(self) -> str:
        """Return what is said under the table of the ranking's resolution; nothing where nothing is ranked."""
        if all(row.rank is None for row in self.rows):
            return ""
        return in_words(self.resolution, sum(row.tied for row in self.rows))


def tasks(flat: Iterable[ResultRow]) -> list[ReportTask]:
    """Group the rows of a folder (``analysis.rows.rows``) by task and method, ranked by distance to the reference.

    Of two results of the same run, by two versions of a package, the newer counts.
    """
    grouped: dict[str, list[ResultRow]] = defaultdict(list)
    for one in flat:
        grouped[one.key].append(one)
    runs = sorted((ReportRun(tuple(group)) for group in grouped.values()), key=lambda run: run.record.cost.finished)
    found: dict[str, dict[str, ReportRow]] = defaultdict(dict)
    configs: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        config, first = run.record.config, run.flat[0]
        asked = task_of(config)
        configs[task := name_of(asked)] = asked
        options = config["method"]["options"]
        name = json.dumps([first.text, options, is_further(first)], sort_keys=True)
        row = found[task].setdefault(name, ReportRow(first.text, first.method))
        row.runs = [*(old for old in row.runs if old.seeds != run.seeds), run]
        if first.knob is not None:
            rest = {key: value for key, value in options.items() if key != first.knob}
            row.curve = (first.knob, json.dumps(rest, sort_keys=True), first.value)
    named = zip(found, titles([configs[task] for task in found]), strict=True)
    order = sorted(named, key=lambda pair: natural(pair[1]))
    return [
        _ranked(ReportTask(f"s{place}", title, configs[task], list(found[task].values())))
        for place, (task, title) in enumerate(order)
    ]


def _ranked(task: ReportTask) -> ReportTask:
    gaps = {id(row): found.mean for row in task.rows if (found := row.figure("average_gap")) is not None}
    ranked = task.ranked  # asked before sorting, during which a list is empty

    def place(row: ReportRow) -> tuple[int, bool, float, list[Any]]:
        role = (*BARE, FURTHER, "method").index(row.role)
        return role, row.competes, gaps.get(id(row), math.inf) if ranked else 0.0, natural(row.text)

    task.rows.sort(key=place)
    for row in task.rows:
        row.runs.sort(key=lambda run: (run.seeds[0], run.seeds[1] or 0))
    if ranked:
        listed = [row for row in task.rows if row.competes and id(row) in gaps]
        for row, rank in zip(listed, places([gaps[id(row)] for row in listed], task.resolution), strict=True):
            row.rank = rank
            row.tied = bool(within(gaps[id(row)], task.resolution))
    return task


def natural(text: str) -> list[Any]:
    """Return a key that sorts numbers in texts by size."""
    parts = re.split(r"(\d+\.?\d*)", text)
    return [(1, float(part), "") if place % 2 else (0, 0.0, part) for place, part in enumerate(parts)]
