"""The columns of the report, and its tables as LaTeX, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..analysis.fronts import Interval
from ..analysis.tables import MISSING
from .rows import TIMES, ReportRow
from .summary import summary
from .tasks import ReportTask

CAPTION = f"Mean ± half-width of the 95 % t interval over n trainings ({TIMES} revisions of each); n/a: not applicable."


@dataclass(frozen=True)
class Column:
    """A figure of the report.

    Attributes:
        name: Its name among a run's values.
        title: Its heading.
        about: What it is, and which values are good.
        form: How a value is written.
    """

    name: str
    title: str
    about: str
    form: str = "{:.3f}"

    def text(self, found: Interval | None) -> str:
        """Return the cell: mean, and half-width where there is one."""
        if found is None:
            return MISSING
        mean = self.form.format(found.mean)
        return mean if found.half is None else f"{mean} ± {self.form.format(found.half)}"


IDEAL = "Ideal: the reference's value."
COLUMNS = (
    Column("average_gap", "gap", "Mean absolute difference to the reference over forget, retain, held-out and "
           "membership. Ideal: 0."),
    Column("forget", "forget", f"Score on the training data to forget, in [0, 1]. {IDEAL}"),
    Column("retain", "retain", f"Score on the training data to keep, in [0, 1]. {IDEAL}"),
    Column("forget_test", "forget test", f"Score on held-out data like the forgotten, in [0, 1]. {IDEAL}"),
    Column("retain_test", "retain test", f"Score on held-out data like the kept, in [0, 1]. {IDEAL}"),
    Column("dice_forget", "Dice forget", f"Dice on the training data to forget, in [0, 1]. {IDEAL}"),
    Column("dice_retain", "Dice retain", f"Dice on the training data to keep, in [0, 1]. {IDEAL}"),
    Column("dice_test", "Dice test", f"Dice on all held-out data, in [0, 1]. {IDEAL}"),
    Column("membership", "member AUC", "AUC of telling forgotten samples from held-out ones by their loss. "
           f"{IDEAL}"),
    Column("tug_of_war", "ToW", "Tug of war: product of 1 - |difference to the reference| over forget, retain and "
           "held-out. Ideal: 1."),
    Column("seconds", "seconds", "Time of the revision, or of the retraining.", "{:.3g}"),
    Column("speed_up", "speed-up", "Seconds of retraining over seconds of the revision, the mean over runs.", "{:.3g}"),
    Column("memory", "peak MiB", "Largest resident memory of the process (on a GPU: of its memory), in MiB.", "{:.0f}"),
)  # fmt: skip


def known_columns(found: Sequence[ReportTask]) -> list[Column]:
    """Return the columns in which any run has a figure."""
    runs = [run for task in found for row in task.rows for run in row.ok]
    return [column for column in COLUMNS if any(run.values[column.name] is not None for run in runs)]


def markdown(found: Sequence[ReportTask]) -> str:
    """Return a table for each task, in Markdown."""
    parts = []
    for task in found:
        columns = known_columns([task])
        heads = ["rank", "method", *(column.title for column in columns), "n", "notes"]
        said = [_in_markdown(line) for line in summary(task)]
        lines = [f"## {_in_markdown(task.title)}", "", " ".join(said), "", *(f"> {note}\n" for note in task.notes)]
        lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for row in task.rows:
            cells = [_in_markdown(text) for text in _cells(row, columns)]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", task.footnote] if task.footnote else []
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, CAPTION]) + "\n"


def _cells(row: ReportRow, columns: Sequence[Column]) -> list[str]:
    figures = [column.text(row.figure(column.name)) for column in columns]
    return [row.place, row.label, *figures, row.count, "; ".join(row.notes)]


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", " ".join(text.split()))


def latex(found: Sequence[ReportTask]) -> str:
    """Return a ``table`` for each task, in LaTeX with the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for task in found:
        columns = known_columns([task])
        heads = ["Method", *(_in_latex(column.title) for column in columns), "$n$"]
        lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule"]
        lines += [" & ".join(heads) + r" \\", r"\midrule"]
        for place, row in enumerate(task.rows):
            cells = [_in_latex(text) for text in _cells(row, columns)[1:-1]]
            marks = ("=" if row.tied else "") + "*" * any(note.startswith("over-forgets") for note in row.notes)
            mark = rf"$^{{{marks}}}$" if marks else ""
            lines.append(" & ".join([cells[0] + mark, *cells[1:]]) + r" \\")
            after = task.rows[place + 1 : place + 2]
            lines += [r"\midrule"] if row.role != "method" and after and after[0].role == "method" else []
        caption = " ".join(
            [f"{task.title}.", *task.notes, task.footnote, CAPTION, "* over-forgets in at least one run."]
        )
        lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_in_latex(caption)}}}", r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", TIMES: r"$\times$", "·": r"$\cdot$",
}  # fmt: skip


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))


def as_csv(found: Sequence[ReportTask]) -> str:
    """Return a line for each row, unrounded, with the ends of intervals in columns of their own; an empty cell is n/a.

    The ends of intervals have columns of their own; an empty cell is n/a. ``task`` is the task's title, which no two
    tasks share.
    """
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    columns = known_columns(found)
    ends = [f"{column.name}{end}" for column in columns for end in ("", "_low", "_high")]
    writer.writerow(["task", "data", "rule", "model", "rank", "method", "runs", "trainings", *ends, "notes"])
    for task in found:
        asked = [task.title, task.data, ", then ".join(task.config["forget"]), task.config["model"]]
        for row in task.rows:
            figures: list[object] = []
            for column in columns:
                one = row.figure(column.name)
                figures += ["", "", ""] if one is None else [one.mean, *_ends(one)]
            seeds = {run.seeds[0] for run in row.ok}
            writer.writerow([*asked, row.rank, row.text, len(row.ok), len(seeds), *figures, "; ".join(row.notes)])
    return target.getvalue()


def _ends(one: Interval) -> tuple[object, object]:
    return ("", "") if one.half is None else (one.mean - one.half, one.mean + one.half)
