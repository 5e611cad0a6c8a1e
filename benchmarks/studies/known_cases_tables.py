"""The study of known cases as Markdown: every figure of every case, and which figures tell which case."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import Any

import numpy as np

ABOUT = """\
Digits, class {label} forgotten; means over {seeds} trainings. The head-only edit lowers the class's bias to the
reference's mean margin, and until no training image of the class is named; far down, by {far:.0f} logits more. Every
feature is the original's in both. The fine-tuned original went on for 10 epochs without the class.

**Bold**: told from the reference, since even the smallest distance to it is larger than the largest between it and the
second. *Italic*: in part, since only the mean distance is larger. By chance a further reference is told so once in
{chances} times: the third is there to see it. Distances are to the first reference.
"""
KLOM = """\
Over {models} models of each case, beside as many references. KLoM: KL(model || reference) of each example's histogram
of margins, 20 equal bins over the range of both, clipped at 100, floor 1e-5, in nats; ideal: its floor, references
against references at the same number of models.
"""
MARKS = {"yes": "**", "in part": "*"}
WORDS = {"in part": "In part", "no": "Not told", "n/a": "N/a"}


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
    lines += ["", "Figures that tell each case from the reference:", ""]
    lines += [f"- {case}: {_listed(found, case)}" for case in cases[2:]]
    lines += ["", KLOM.format(models=models)]
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


def _listed(found: Mapping[str, Any], case: str) -> str:
    """Return how many figures tell a case, and which do in part or not at all."""
    titles: dict[str, list[str]] = {"yes": [], "in part": [], "no": [], "n/a": []}
    for key, title in found["titles"].items():
        titles[found["told"][key][case]].append(title)
    parts = [f"{len(titles['yes'])} of {len(found['titles'])}"]
    parts += [f"{words}: {'; '.join(titles[verdict])}" for verdict, words in WORDS.items() if titles[verdict]]
    return ". ".join(parts)
