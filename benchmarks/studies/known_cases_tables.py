"""The study of known cases as Markdown: every figure of every case, and which tell a head that was edited alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from ..audit.table import KLOM

ABOUT = """\
Digits, class {label} forgotten; means over {seeds} trainings. The head-only edit lowers the class's bias to the
reference's mean margin, and until no training image of the class is named; far down, by {far:.0f} logits more. Every
feature is the original's in both. The fine-tuned original went on for 10 epochs without the class.

**Bold**: told from the reference, since even the smallest distance to it is larger than the largest between it and the
second. *Italic*: in part, since only the mean distance is larger. By chance a further reference is told so once in
{chances} times: the third is there to see it. Distances are to the first reference.
"""
BESIDE = "Over {models} models of each case, beside as many references; ideal: 0.5, and the floor of references. {klom}"
MARKS = {"yes": "**", "in part": "*"}


def tables(found: Mapping[str, Any]) -> str:
    """Return the study as Markdown."""
    models, seeds, cases = found["arguments"]["models"], found["arguments"]["seeds"], found["cases"]
    lines = [
        "# What each audit says of models that are known",
        "",
        f"`python -m benchmarks.studies.known_cases --models {models} --seeds {seeds}`",
        "",
        ABOUT.format(label=found["label"], seeds=seeds, far=found["far_down"], chances=comb(2 * seeds, seeds)),
        f"| figure | {' | '.join(cases)} |",
        f"|---|{'---|' * len(cases)}",
    ]
    for key, title in found["titles"].items():
        lines.append(f"| {title} | {' | '.join(_cell(found, key, case) for case in cases)} |")
    lines += ["", *_counts(found, cases[2:]), ""]
    lines += [f"- {words}: {'; '.join(titles)}." for words, titles in _passed(found).items() if titles]
    lines += ["", BESIDE.format(models=models, klom=KLOM), ""]
    lines += ["| case | U-LiRA | 95 % interval | KLoM, median | 95th percentile | floor of both | p |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for case, one in found["over_many"].items():
        interval, floor = (
            "[{:.3f}, {:.3f}]".format(*one["interval"]),
            "{floor_median:.2f}, {floor_p95:.2f}".format(**one),
        )
        klom = "{klom_median:.2f} | {klom_p95:.2f}".format(**one)
        lines.append(f"| {case} | {one['u_lira']:.3f} | {interval} | {klom} | {floor} | {one['p_value']:.3f} |")
    return "\n".join([*lines, ""])


def _cell(found: Mapping[str, Any], key: str, case: str) -> str:
    known = [value for one in found["values"][case] if (value := one[key]) is not None]
    if not known:
        return "n/a"
    mark = MARKS.get(found["told"][key].get(case, ""), "")
    return f"{mark}{np.mean(known):.3f}{mark}"


def _counts(found: Mapping[str, Any], cases: Sequence[str]) -> list[str]:
    """Return how many figures tell each case, and in part."""
    lines = [f"Of {len(found['titles'])} figures:", "", "| case | told | in part |", "|---|---|---|"]
    for case in cases:
        verdicts = [verdict[case] for verdict in found["told"].values()]
        lines.append(f"| {case} | {verdicts.count('yes')} | {verdicts.count('in part')} |")
    return lines


def _passed(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the figures that tell the original: by whether a head that was edited alone passes them."""
    original, *heads = (found["cases"][2:])[:3]
    passed: dict[str, list[str]] = {"Not passed by the head alone": [], "Passed by the head alone": []}
    for key, verdicts in found["told"].items():
        if verdicts[original] == "yes":
            kept = all(verdicts[head] == "yes" for head in heads)
            passed["Not passed by the head alone" if kept else "Passed by the head alone"].append(found["titles"][key])
    return passed
