"""What a suite forgets: one request, the hardest samples, or several requests one after another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unlearn_kit import UnlearnTask
from unlearn_kit.composition import cumulative_tasks, joint_task
from unlearn_kit.data import DataBundle, Duplicates
from unlearn_kit.errors import check_number
from unlearn_kit.seeding import derive

from .recipes import RULES, ForgetRule

logger = logging.getLogger("unlearn_kit")

HARDEST = "outliers"
MAX_RULE = 200  # characters; a rule becomes a part of the names of files
FORMS = (*(written for written, _, _ in RULES.values()), f"{HARDEST}:SHARE")


@dataclass(frozen=True)
class Scenario:
    """Requests to forget, in the order in which they come; one of them for most scenarios.

    A request is a rule of :class:`.recipes.ForgetRule`, or ``outliers:SHARE``: the share of the training samples that a
    model trained on the held-out data alone, which has seen none of them, finds hardest (by cross-entropy).

    Raises:
        ValueError: When a request is of no known form, or when there is none.
    """

    rules: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("expected at least one request to forget, but got none")
        object.__setattr__(self, "rules", tuple(map(_canonical, self.rules)))

    @property
    def text(self) -> str:
        """Return the requests in words."""
        return ", then ".join(self.rules)

    @property
    def needs_difficulty(self) -> bool:
        """Return whether it can only be drawn with the samples' difficulty."""
        return any(_is_hardest(rule) for rule in self.rules)

    def requests(self, bundle: DataBundle, seed: int, difficulty: Tensor | None = None) -> list[UnlearnTask]:
        """Return one task a request: what it forgets, and all that is kept once it and the earlier ones are met.

        Args:
            bundle: The data.
            seed: Of random draws, which are independent for every request.
            difficulty: Of every training sample, ``(N,)``, larger is harder; for ``outliers`` only.

        Raises:
            ValueError: When a rule does not fit the data, or leaves nothing to keep.
            TypeError: When the data are of a kind that a rule is not for.
        """
        tasks = [
            self._task(rule, bundle, derive(seed, "request", place), difficulty)
            for place, rule in enumerate(self.rules)
        ]
        if len(tasks) > 1:
            tasks = cumulative_tasks(tasks)
        for name in ("retain", "retain_test"):
            if len(getattr(tasks[-1], name)) == 0:
                raise ValueError(f"expected forget={self.text!r} to leave data in {name!r}, but it leaves none")
        return tasks

    def whole(self, requests: Sequence[UnlearnTask]) -> UnlearnTask:
        """Return the task of all requests together: what the reference is trained without, and judged on."""
        return requests[0] if len(requests) == 1 else joint_task(requests)

    def _task(self, rule: str, bundle: DataBundle, seed: int, difficulty: Tensor | None) -> UnlearnTask:
        if not _is_hardest(rule):
            return ForgetRule(rule).task(bundle, seed)
        count = max(1, round(_share(rule) * len(bundle.train)))
        if difficulty is None or difficulty.shape != (len(bundle.train),):
            raise ValueError(f"expected one difficulty a training sample for {rule!r}, but got {_shape(difficulty)}")
        chosen = difficulty.argsort(descending=True, stable=True)[:count].sort().values
        return UnlearnTask.forget_samples(
            bundle.train, bundle.test, chosen, num_classes=bundle.num_classes, validation=bundle.validation
        )


def _canonical(rule: str) -> str:
    """Return a request as it is always written."""
    if len(rule) > MAX_RULE:
        raise ValueError(f"expected a request to forget of at most {MAX_RULE} characters, but got {len(rule)}")
    if _is_hardest(rule):
        return f"{HARDEST}:{_share(rule)}"
    if rule.partition(":")[0] not in RULES:
        raise ValueError(f"expected forget to be one of {', '.join(FORMS)}, but got {rule!r}")
    return ForgetRule(rule).text


def tell_duplicates(found: Duplicates) -> None:
    """Log which pictures are there twice, before anything runs on them."""
    for line in str(found).splitlines():
        logger.warning("the same picture twice: %s", line)


def _is_hardest(rule: str) -> bool:
    return rule.partition(":")[0] == HARDEST


def _share(rule: str) -> float:
    try:
        share = float(rule.partition(":")[2])
    except ValueError:
        raise ValueError(f"expected forget to be one of {', '.join(FORMS)}, but got {rule!r}") from None
    return check_number(f"the share of {rule!r}", share, low=0, high=1, open_low=True, open_high=True)


def _shape(values: Tensor | None) -> object:
    return None if values is None else tuple(values.shape)
