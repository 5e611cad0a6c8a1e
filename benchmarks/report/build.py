"""The report as a page, or as tables: from a store's folder to a file, whole or not at all."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unlearn_kit.errors import check_choice
from unlearn_kit.files import plain, write_text

from ..analysis.rows import rows, suites_in
from ..analysis.tables import MISSING
from ..suites.records import Record
from ..suites.store import Store, planned_nodes, read_json
from .classes import class_means
from .confusion import confusion
from .curves import write_curves
from .figures import figures
from .groups import group_table
from .links import Links
from .looks import identifiers, looks
from .pictures import strips
from .reproduce import command, suite_of, suite_text
from .rows import FURTHER, ReportRow, ReportRun
from .sequence import standings
from .summary import forgotten, summary
from .tables import CAPTION, Column, as_csv, known_columns, latex, markdown
from .tasks import ReportTask, tasks

HERE = Path(__file__).parent
# The bundle of plain charts, from npm's plotly.js-cartesian-dist-min 4.1.1: what the Python package holds is three
# times as large, which readers of a page would wait for.
PLOTLY = "plotly-cartesian.min.js"
FAILED = {"name", "reason", "traceback"}  # what the page says of a failure
TABLES: dict[str, Callable[[Sequence[ReportTask]], str]] = {"latex": latex, "csv": as_csv, "markdown": markdown}
FORMATS = ("html", *TABLES, "curves")
SUFFIXES = {"html": "html", "latex": "tex", "csv": "csv", "markdown": "md"}


def write_report(
    folder: str | Path,
    *,
    format: str = "html",  # noqa: A002
    suite: str | None = None,
    out: str | Path | None = None,
) -> Path:
    """Write what a folder of results says, and return the file's path.

    Args:
        folder: A store, as ``unlearn-kit run`` leaves it; it may still be growing.
        format: "html" (one page that opens offline), "latex", "csv" or "markdown" (the tables alone), or "curves"
            (the tradeoff curves as data and figures, in a folder).
        suite: Only the runs of this suite, as it was last run into the folder.
        out: The file; ``report.html``, ``.tex``, ``.csv`` or ``.md`` in the folder unless given. Of curves, the folder
            to write into; ``curves`` in the folder unless given.

    Raises:
        ValueError: On an unknown format or suite, or a folder without results (for curves: of methods).
        OSError: When the file cannot be written.
    """
    check_choice("format", format, FORMATS)
    if format == "curves":
        target = Path(folder) / "curves" if out is None else Path(out)
        if not write_curves(_tasks_of(folder, suite), target):
            raise ValueError(f"expected dir to hold a finished run of at least one method, but got {str(folder)!r}")
        return target
    target = Path(folder) / f"report.{SUFFIXES[format]}" if out is None else Path(out)
    text = render(folder, format, suite, beside=target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_text(text, target)


def render(
    folder: str | Path,
    format: str = "html",  # noqa: A002
    suite: str | None = None,
    *,
    beside: str | Path | None = None,
) -> str:
    """Return the text of a report, see :func:`write_report`.

    Args:
        folder: A store.
        format: As there, but no curves.
        suite: Only its runs.
        beside: The folder that a page's links to receipts and weights start from; ``folder`` unless given.

    Raises:
        ValueError: On an unknown format or suite, or a folder without results.
    """
    check_choice("format", format, ("html", *TABLES))
    found = _tasks_of(folder, suite)
    if format != "html":
        return TABLES[format](found)
    return page(found, folder, suite, beside=folder if beside is None else beside)


def _tasks_of(folder: str | Path, suite: str | None) -> list[ReportTask]:
    found = tasks(rows(folder, suite))
    if not found:
        raise ValueError(f"expected dir to be a folder with results of `unlearn-kit run`, but got {str(folder)!r}")
    return found


def page(found: Sequence[ReportTask], folder: str | Path, suite: str | None = None, *, beside: str | Path) -> str:
    """Return the report as HTML: everything it needs is in it, and it may ask nothing of any other place."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    store = Store(folder, create=False)
    names = suites_in(folder) if suite is None else [suite]
    suites = [read_json(store.path("suites", name)) or {} for name in names]
    columns = known_columns(found)
    look = looks(sorted({row.method for one in found for row in one.rows if row.role == "method"}))
    planned = sorted({node["key"] for one in suites for node in planned_nodes(one)})
    failures = [one for key in planned if (one := read_json(store.path("failures", key))) and one.keys() >= FAILED]
    records = [run.record for one in found for row in one.rows for run in row.runs]
    links = Links(store, Path(beside))
    return environment.get_template("template.html").render(
        title=", ".join(names) or store.root.resolve().name,
        about=[str(one["about"]) for one in suites if one.get("about")],
        until=max(record.cost.finished for record in records),
        versions=_versions(records),
        runs=len(records),
        caption=CAPTION,
        columns=columns,
        tasks=[_task(one, columns, look, store, links) for one in found],
        methods=list(look),
        datasets=sorted({one.data for one in found}),
        failures=failures,
        css=(HERE / "style.css").read_text(encoding="utf-8"),
        script=(HERE / "report.js").read_text(encoding="utf-8"),
        plotly=_packed(HERE / PLOTLY),
        data=_in_script(_data(found, columns)),
    )


def _versions(records: Sequence[Record]) -> str:
    """Return all versions of every package that any run had."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in record.versions.items():
            found.setdefault(name, {})[version] = None
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items())


def _task(task: ReportTask, columns: Sequence[Column], look: Any, store: Store, links: Links) -> dict[str, Any]:
    """Return what the page shows of a task."""
    names = {(id(row), place): name for name, row, place in identifiers(task)}
    return {
        "name": task.name,
        "title": task.title,
        "data": task.data,
        "summary": summary(task),
        "forgotten": forgotten(task),
        "lead": _lead(task),
        "notes": task.notes,
        "footnote": task.footnote,
        "score": task.score,
        "strips": strips(task, store),
        "sequence": _sequence(task),
        "confusion": confusion(task),
        "groups": group_table(task),
        "rows": [_row(task, row, names, columns, look, links) for row in task.rows],
    }


def _sequence(task: ReportTask) -> list[dict[str, Any]]:
    """Return, of requests served one after another, a row a method and request: its figures after every step."""
    return [
        {"label": row.label, "steps": list(found), "request": name, "cells": cells}
        for row in task.rows
        if row.role not in ("reference", FURTHER)
        for found in [standings([run.record for run in row.ok])]
        for name, cells in found.items()
    ]


def _lead(task: ReportTask) -> str:
    """Say what the original and the reference do on the forget set, before any method."""
    column = Column("forget_score", "", "")
    kind = "held-out data like the forgotten" if task.held_out else "the forgotten training data"
    said = []
    for role, verb in (("original", " scores"), ("reference", ", retrained without the data,")):
        row = task.row(role)
        score = column.text(None if row is None else row.figure("forget_score"))
        member = column.text(None if row is None else row.figure("membership"))
        score, member = score.replace(" ", "\u00a0"), member.replace(" ", "\u00a0")
        said.append(f"the {role}{verb} {score} (membership AUC {member})")
    return f"On {kind}, {' and '.join(said)}."


def _row(
    task: ReportTask,
    row: ReportRow,
    names: dict[tuple[int, int | None], str],
    columns: Sequence[Column],
    look: Any,
    links: Links,
) -> dict[str, Any]:
    figures_of = [(column, row.figure(column.name)) for column in columns]
    color, symbol = look.get(row.method, ("currentColor", "reference" if row.role == FURTHER else row.role))
    return {
        "id": names[id(row), None],
        "label": row.label,
        "method": row.method,
        "role": row.role,
        "rank": row.rank,
        "place": row.place,
        "color": color,
        "symbol": symbol,
        "count": row.count,
        "notes": row.notes,
        "reasons": row.reasons,
        "cells": [
            {
                "text": MISSING if one is None else column.form.format(one.mean),
                "half": "" if one is None or one.half is None else column.form.format(one.half),
                "value": "" if one is None else repr(one.mean),
            }
            for column, one in figures_of
        ],
        "runs": [
            {
                "id": names[id(row), place],
                "text": run.text,
                "status": run.status,
                "gap": _gap(run),
                "key": run.record.key,
                "files": links.of(run),
            }
            for place, run in enumerate(row.runs)
        ],
        "command": command(row),
        "suite": suite_text(suite_of(task, row)),
    }


def _gap(run: ReportRun) -> str:
    gap = run.values["average_gap"]
    return MISSING if gap is None else f"{gap:.3f}"


def _data(found: Sequence[ReportTask], columns: Sequence[Column]) -> dict[str, Any]:
    """Return what the page's script needs: charts, and the figures of every row and run that can be compared."""
    points = {}
    for task in found:
        known = list(identifiers(task))
        reference = next((name for name, row, place in known if row.role == "reference" and place is None), None)
        for name, row, place in known:
            run = None if place is None else row.runs[place]
            points[name] = {
                "label": row.label,
                "who": f"n = {row.count}" if run is None else run.text,
                "task": task.title,
                "reference": reference,
                "options": _options(row if run is None else run),
                "notes": row.notes if run is None else [] if run.status == "ok" else [run.status],
                "values": [_value(column, row, run) for column in columns],
                **_samples(task, row, run),
            }
    return {
        "columns": [column.title for column in columns],
        "points": points,
        "charts": {task.name: figures(task) for task in found},
    }


def _samples(task: ReportTask, row: ReportRow, run: ReportRun | None) -> dict[str, Any]:
    """Return the scores of the classes, and the losses of forgotten samples beside the reference's where both are."""
    classes = class_means(row) if run is None else {label: v for label, v in run.per_class.items() if v is not None}
    found: dict[str, Any] = {"classes": {task.class_title(label): f"{v:.3f}" for label, v in sorted(classes.items())}}
    reference = task.row("reference")
    theirs = {} if reference is None else {one.seeds[0]: one.record.forget_losses for one in reference.ok}
    for one in row.ok if run is None else [run]:
        mine, other = one.record.forget_losses, theirs.get(one.seeds[0])
        if mine and other and len(mine) == len(other):
            return {**found, "losses": [other, mine], "losses_of": one.text}
    return found


def _options(thing: ReportRow | ReportRun) -> dict[str, str]:
    record = thing.record if isinstance(thing, ReportRun) else (thing.ok or thing.runs)[0].record
    given = record.options or record.config["method"]["options"]
    return {key: str(value) for key, value in given.items() if value is not None and key not in ("seed", "device")}


def _value(column: Column, row: ReportRow, run: ReportRun | None) -> list[Any]:
    """Return the mean, unrounded, and the cell."""
    if run is None:
        found = row.figure(column.name)
        return [None if found is None else found.mean, column.text(found)]
    value = run.values[column.name]
    return [value, MISSING if value is None else column.form.format(value)]


def _packed(path: Path) -> str:
    """Return a file's bytes, compressed, as text: the same every time."""
    return base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode("ascii")


def _in_script(value: Any) -> str:
    """Return JSON that nothing in it can end the script element with."""
    text = json.dumps(plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
