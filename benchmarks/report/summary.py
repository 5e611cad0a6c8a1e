"""What a task's figures come to, in sentences: what to use, what that costs, and what not to use and why."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from .rows import ReportRow
from .tasks import ReportTask

MOST = 6  # names in a list; the table below has them all


def summary(task: ReportTask) -> list[str]:
    """Return the best method with its cost, then what not to use; where nothing can be ranked, that.

    A method is not to be used when at least half of its runs diverge, over-forget or see a request come back, or when
    it is no nearer to the reference than doing nothing.
    """
    methods = [row for row in task.rows if row.competes]
    if not any(row.ok for row in methods):
        return ["No method has finished yet." if all(not row.runs for row in methods) else "No method has figures."]
    if not task.ranked:
        return ["No method is best: there is nothing to forget here."]
    ranked = [row for row in methods if row.rank is not None]
    if not ranked:
        return ["No method is best: without a reference's result nothing tells how far a method is from it."]
    found = {id(row): faults(task, row) for row in methods}
    usable = [row for row in ranked if not found[id(row)]]
    said = [_best(task, usable, passed_over=usable[0] is not ranked[0])] if usable else []
    if not usable:
        said.append("No method can be recommended: each has one of these faults.")
    by_fault: dict[str, list[str]] = {}
    for row in methods:
        for fault in found[id(row)]:
            by_fault.setdefault(fault, []).append(row.label)
    if by_fault:
        said.append(f"Do not use: {'; '.join(f'{_listed(names)} ({fault})' for fault, names in by_fault.items())}.")
    return said


def forgotten(task: ReportTask) -> str:
    """Return how much is forgotten, in words: images, and the patients or other groups that they are of where known.

    Trainings may draw other samples; then the fewest and the most. Empty where no record tells.
    """
    records = [run.record for row in task.rows for run in row.runs]
    images = _range({record.forget_samples for record in records if record.forget_samples is not None})
    if not images:
        return ""
    said = f"{images} training {'image' if images == '1' else 'images'}"
    groups = [record.forget_groups for record in records if record.forget_groups is not None]
    if not groups:
        return said
    touched, every = (_range({int(one[name]) for one in groups}) for name in ("touched", "groups"))
    return f"{said} of {touched} of {every} {groups[0]['name']}"


def _range(counts: set[int]) -> str:
    """Return counts in words; empty for none."""
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def faults(task: ReportTask, row: ReportRow) -> list[str]:
    """Return why a method is not to be used here; empty for one that may be."""
    said = []
    if 2 * sum(run.status == "diverged" for run in row.runs) >= len(row.runs):
        said.append("diverges")
    if row.ok and 2 * sum(run.over_forgets for run in row.ok) >= len(row.ok):
        said.append("over-forgets, which marks the forgotten samples")
    if row.relapsed:
        said.append("forgotten data come back with later requests")
    if _idle(task, row):
        said.append("no nearer to the reference than doing nothing")
    return said


def _idle(task: ReportTask, row: ReportRow) -> bool:
    """Return whether doing nothing is as near to the reference, over the trainings that both have figures of."""
    original = task.row("original")
    mine, nothing = row.by_training("average_gap"), {} if original is None else original.by_training("average_gap")
    shared = mine.keys() & nothing.keys()
    if not shared:
        return False
    return fmean(mine[one] for one in shared) >= fmean(nothing[one] for one in shared)


def _best(task: ReportTask, usable: Sequence[ReportRow], *, passed_over: bool) -> str:
    tied = [row for row in usable if row.tied]
    among = " of the methods without a fault" if passed_over else ""
    if len(tied) > 1:
        quickest = min(tied, key=_seconds)
        names = _listed([row.label for row in tied])
        return (
            f"Best{among}: {names} are tied, as near to the reference as another reference is. The quickest of them, "
            f"{quickest.label}, {_figures(task, quickest)}."
        )
    best = usable[0]
    unknown = "" if task.resolution is not None else " Whether the next ones are truly worse is not known."
    if best.tied:
        unknown = " It cannot be told from a reference, the other methods can."
    return f"Best{among}: {best.label}, nearest to the reference, {_figures(task, best)}.{unknown}"


def _seconds(row: ReportRow) -> float:
    found = row.figure("seconds")
    return float("inf") if found is None else found.mean


def _figures(task: ReportTask, row: ReportRow) -> str:
    """Return a row's gap and cost in words."""
    gap, seconds = row.figure("average_gap"), row.figure("seconds")
    said = []
    if gap is not None:
        said.append(f"has a gap of {gap.mean:.3f}" + ("" if gap.half is None else f" ± {gap.half:.3f}"))
    if seconds is not None:
        said.append(f"takes {seconds.mean:.3g} s" + _beside_retraining(task, seconds.mean))
    return " and ".join(said)


def _beside_retraining(task: ReportTask, seconds: float) -> str:
    reference = task.row("reference")
    theirs = None if reference is None else reference.figure("seconds")
    if theirs is None or not seconds or not theirs.mean:
        return ""
    times = theirs.mean / seconds
    if times < 1:
        return f", more than retraining, which takes {theirs.mean:.3g} s"
    return f", {times:.3g} times as fast as retraining ({theirs.mean:.3g} s)"


def _listed(names: Sequence[str]) -> str:
    """Return names as words, the first few of many."""
    shown = list(names if len(names) <= MOST else [*names[: MOST - 1], f"{len(names) - MOST + 1} more"])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
