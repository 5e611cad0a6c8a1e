"""What the study of defaults may turn: one row a method, of one to three options and the range of each.

The defaults it starts from are written down, too, since those of the methods may change by what it finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy.stats import qmc

from unlearn_kit.seeding import derive


@dataclass(frozen=True)
class Range:
    """Values between two positive numbers, evenly spread over their logarithm.

    Attributes:
        low, high: The ends.
        form: "number", "count" (rounded to an int) or "complement" (1 minus the value).
    """

    low: float
    high: float
    form: str = "number"

    def at(self, share: float) -> float | int:
        """Return the value at a share in [0, 1] of the way, to three digits."""
        value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        if self.form == "count":
            return round(value)
        return float(f"{1 - value if self.form == 'complement' else value:.3g}")

    def __str__(self) -> str:
        """Return the ends as they are written in the table."""
        ends = (f"{self.low:g}", f"{self.high:g}")
        return f"1 - [{', '.join(ends)}]" if self.form == "complement" else f"[{', '.join(ends)}]"


def _count(low: int, high: int) -> Range:
    return Range(low, high, "count")


STEPS, WEIGHT = _count(20, 80), Range(1.0, 10.0)

# Those that are for single samples (quantile_matching, augmentation_matching, the presets of perturbed_sign beside its
# default) have no default for a class.
RANGES: dict[str, dict[str, Range]] = {
    "boundary_shrink": {"lr": Range(2e-3, 0.05), "radius": Range(0.03, 0.3), "retain_weight": WEIGHT},
    "scrub": {"lr": Range(0.01, 0.25), "clip": Range(0.02, 0.5), "alpha": Range(0.1, 2.0)},
    "neg_grad_plus": {"lr": Range(2e-4, 5e-3), "alpha": Range(2e-3, 0.05, "complement"), "steps": STEPS},
    "ssd": {"dampening": Range(0.1, 2.0)},
    "salun": {"lr": Range(5e-3, 0.1), "retain_weight": Range(1.0, 30.0), "steps": STEPS},
    "lfssd": {"dampening": Range(0.1, 2.0)},
    "random_label": {"lr": Range(5e-3, 0.1), "retain_weight": Range(1.0, 30.0), "steps": STEPS},
    "perturbed_sign": {"lr": Range(5e-3, 0.1), "retain_weight": WEIGHT, "steps": STEPS},
    "boundary_expand": {"lr": Range(6e-3, 0.15), "retain_weight": WEIGHT, "steps": STEPS},
    "delete": {"lr": Range(2e-3, 0.05), "clip": Range(0.2, 5.0), "steps": _count(40, 160)},
    "neg_grad": {"lr": Range(2e-3, 0.05), "clip": Range(0.02, 0.5), "steps": _count(10, 40)},
    "damp": {"strength": Range(0.5, 2.0), "growth": Range(0.5, 8.0)},
    "fisher_forgetting": {"alpha": Range(1e-8, 1e-4), "head_variance": Range(1e-6, 1e-2)},
    "jit": {"lr": Range(6e-5, 3e-3), "std": Range(0.01, 0.25), "steps": _count(10, 80)},
    "sfron": {"lr": Range(2e-3, 0.05), "threshold": Range(0.3, 3.0), "steps": _count(30, 120)},
    "finetune": {"lr": Range(2e-3, 0.1), "weight_decay": Range(1e-4, 5e-3), "epochs": _count(1, 4)},
    "l1_sparse": {"lr": Range(2e-3, 0.1), "gamma": Range(1e-4, 5e-3), "epochs": _count(1, 4)},
    "catastrophic_forget_k": {"lr": Range(2e-3, 0.1), "k": _count(1, 5), "epochs": _count(1, 4)},
    "exact_unlearn_k": {"lr": Range(0.01, 0.2), "k": _count(1, 5), "epochs": _count(1, 4)},
    "masked_small_gradient": {"lr": Range(0.04, 0.5), "share": Range(0.1, 0.8), "steps": _count(50, 150)},
    "munba": {"lr": Range(6e-4, 0.015), "steps": STEPS},
    "hamu": {"lr": Range(0.02, 0.5), "cosine": Range(0.1, 1.0), "steps": STEPS},
    "regun": {"lr": Range(5e-3, 0.1), "retain_weight": Range(0.3, 10.0), "steps": STEPS},
    "reload": {"lr": Range(2e-3, 0.1), "ascent": Range(0.05, 2.0), "share": Range(0.03, 0.5)},
    "rurk": {"lr": Range(5e-3, 0.1), "forget_weight": Range(0.3, 3.0), "radius": Range(0.01, 0.1)},
    "lotus": {"lr": Range(1e-4, 5e-3), "strength": Range(2.0, 32.0), "epochs": _count(10, 40)},
    "bad_teacher": {"lr": Range(2e-4, 5e-3), "retain_share": Range(0.1, 1.0), "steps": STEPS},
    "mean_feature_head": {"lr": Range(5e-3, 0.1), "rounds": _count(1, 4), "steps": _count(25, 100)},
    "unsir": {"lr": Range(6e-4, 0.015), "repair_lr": Range(2e-4, 5e-3), "steps": _count(25, 75)},
    "influence": {"damping": Range(0.3, 30.0), "retain_drop": Range(0.01, 0.1)},
    "ugradsl": {"lr": Range(2e-4, 5e-3), "retain_share": Range(2e-3, 0.05, "complement"), "steps": STEPS},
    "negmerge": {"lr": Range(2e-5, 5e-4), "retain_drop": Range(0.01, 0.1), "steps": _count(10, 40)},
    "amun": {"lr": Range(0.02, 0.5), "radius": Range(1e-3, 0.1), "steps": _count(40, 100)},
    "erase_to_retain": {"lr": Range(2e-4, 0.01), "rank": _count(4, 32), "erase_weight": Range(0.3, 3.0)},
}

# The defaults before the study, where they are others today.
FORMER: dict[str, dict[str, Any]] = {
    "boundary_shrink": {"uncrossed": "keep"},
    "scrub": {"doublings": 0},
    "neg_grad_plus": {"doublings": 0},
    "ssd": {"doublings": 0},
    "lfssd": {"doublings": 0},
    "masked_small_gradient": {"doublings": 0},
    "lotus": {"doublings": 0},
    "hamu": {"doublings": 0},
    "neg_grad": {"doublings": 0},
}
# What mended known faults before anything was searched: a rule that follows the data, not a number.
MENDED: dict[str, dict[str, Any]] = {
    "boundary_shrink": {"uncrossed": "runner-up"},
    "scrub": {"doublings": 3},
    "neg_grad_plus": {"doublings": 3},
    "ssd": {"doublings": 5},
    "lfssd": {"doublings": 5},
    "masked_small_gradient": {"doublings": 1},
    "lotus": {"doublings": 3},
    "hamu": {"doublings": 6},
    "neg_grad": {"doublings": 3},
}


def trials(method: str, count: int) -> list[dict[str, Any]]:
    """Return the default the study starts from, then ``count`` settings: a Latin hypercube over the method's ranges."""
    start = FORMER.get(method, {}) | MENDED.get(method, {})
    ranges = RANGES[method]
    points = qmc.LatinHypercube(len(ranges), rng=derive(0, "defaults", method) % 2**32).random(count)
    drawn = [{name: r.at(share) for (name, r), share in zip(ranges.items(), point, strict=True)} for point in points]
    return [start, *(start | setting for setting in drawn)]
