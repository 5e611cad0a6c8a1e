"""What an audit found, in words: one claim at a time, and no more than the figures carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearn_kit.metrics import Klom, Summary, ULira, summary

Values = Sequence[float | None]


def differences(first: Values, second: Values) -> Summary | None:
    """Return the summary of ``first - second``, pair by pair, over the pairs that have both."""
    found = [a - b for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return summary(found)


def told_apart(difference: Summary | None) -> bool | None:
    """Return whether the 95 % interval of a difference leaves 0 out; None where there is no interval."""
    if difference is None or difference.interval is None:
        return None
    low, high = difference.interval
    return low > 0 or high < 0


def paired_verdict(method: Values, reference: Values, nothing: Values) -> str:
    """Judge a figure of single models: the method's pairs against those of a second reference.

    Where not even doing nothing differs from a second reference, the audit has shown nothing about a method.
    """
    difference, baseline = differences(method, reference), differences(nothing, reference)
    apart = told_apart(difference)
    if difference is None:
        return "n/a"
    if apart is None:
        return f"{difference.mean:+.3f} from a second reference; one pair has no interval"
    ends = "{:+.3f}, {:+.3f}".format(*(difference.interval or ()))
    if not apart:
        seen = "; nor is doing nothing, so this shows little" if told_apart(baseline) is False else ""
        return f"not told apart from a second reference at n = {difference.n} [{ends}]{seen}"
    return f"{'above' if difference.mean > 0 else 'below'} a second reference by [{ends}], n = {difference.n}"


def u_lira_verdict(method: ULira | None, nothing: ULira | None) -> str:
    """Judge the membership of forget data over many models."""
    if method is None:
        return "n/a"
    low, high = method.interval
    ends = "no interval" if low is None or high is None else f"95 % interval [{low:.3f}, {high:.3f}]"
    n = f"n = {min(method.unlearned, method.oracles)}"
    if low is None or low > 0.5:
        return f"distinguishable from the reference at {n}, {ends}"
    detected = nothing is not None and nothing.interval[0] is not None and nothing.interval[0] > 0.5
    if not detected:
        return f"doing nothing is not detected either at {n}: nothing can be concluded"
    return f"indistinguishable from the reference at {n}, {ends}"


def klom_verdict(method: Klom | None) -> str:
    """Judge the divergence of margins from its floor.

    Both are at the same number of models, which are what chance is judged over.
    """
    if method is None:
        return "n/a"
    apart = float(np.mean(method.per_example - method.floor_per_example))
    share = float(np.mean(method.per_example > method.floor_p95))
    where = f"over {method.examples} examples, n = {method.models}, p = {method.p_value:.3f}"
    beyond = f"; {share:.0%} of the examples lie beyond the floor's 95th percentile"
    if method.p_value > 0.05:
        return f"not told apart from its floor {where}{beyond}"
    return f"{'above' if apart > 0 else 'below'} its floor by {abs(apart):.3f} nats {where}{beyond}"
