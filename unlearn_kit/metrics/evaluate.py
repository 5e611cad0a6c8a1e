"""The figures every comparison starts from, in one pass over each split of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Unpack

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_choice
from ..judging import beside, farthest
from ..outputs import check_classes
from ..scores import SPLITS, Evaluation
from ..seeding import standardized
from ..tasks import UnlearnTask, check_task
from .findings import macro_auroc, right, table
from .membership import class_matched, loss, probability_smaller
from .predict import Reading, class_labels, map_batches, mean_of_judged
from .utility import class_means, correct, iou_scores, mean_of_present


class _Samples(NamedTuple):
    """Per-sample figures of one split: scores ``(N,)``, of masks ``(N, C)``, of findings ``(N, K)``; losses; labels.

    A mask class that is empty in prediction and target alike has a score of NaN, as a finding that is unknown. Logits
    and truth ``(N, K)`` are kept of findings alone; of all else ``(N, 0)``.
    """

    scores: Tensor
    losses: Tensor
    labels: Tensor
    logits: Tensor
    truth: Tensor


@checked
def evaluate(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module | Evaluation | Sequence[nn.Module] | None = None,
    *,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> Evaluation:
    """Score ``model`` on the four splits of ``task``, each sample read once.

    Args:
        model: The model to judge; its weights, buffers and modes and the caller's random state are untouched.
        task: The splits.
        reference: The retrained model, or its own :class:`Evaluation`, so that it need not run again. Of several,
            which differ by their seeds alone, distances are to the first, and how far the others are from it is the
            ``resolution`` of these distances.
        seed: Of the class-matched sample behind ``membership``.
        **reading: See :class:`.predict.Reading`.

    Raises:
        ValueError: On non-finite logits, targets that do not fit them, or an evaluation of other data.
        TypeError: When ``reference`` is neither a model nor an evaluation.
    """
    if isinstance(reference, Sequence):
        if not len(reference):
            raise ValueError("expected reference to hold at least one model, but got none")
        first = evaluate(reference[0], task, seed=seed, **reading)
        apart = [evaluate(one, task, first, seed=seed, **reading).average_gap for one in reference[1:]]
        return replace(evaluate(model, task, first, seed=seed, **reading), resolution=farthest(apart))
    theirs = reference if reference is None or isinstance(reference, nn.Module) else {seed: reference}
    return evaluate_seeds(model, task, theirs, seeds=(seed,), **reading)[seed]


@checked
@standardized
def evaluate_seeds(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module | Mapping[int, Evaluation] | None = None,
    *,
    seeds: Sequence[int],
    **reading: Unpack[Reading],
) -> dict[int, Evaluation]:
    """Return what :func:`evaluate` gives under each of several seeds, with each sample read once for all of them.

    Args:
        model: The model to judge, as there.
        task: The splits.
        reference: The retrained model, or its own evaluations by seed; under a seed without one, distances are n/a.
        seeds: Of the class-matched samples behind ``membership``, on which nothing else depends.
        **reading: See :class:`.predict.Reading`.

    Returns:
        One evaluation a seed, in the order of the seeds.

    Raises:
        ValueError: On non-finite logits, targets that do not fit them, or an evaluation of other data.
        TypeError: When ``reference`` is, or holds, something else.
    """
    check_task(task)
    if not isinstance(seeds, Sequence):
        raise TypeError(f"expected seeds to be a list of ints, but got {type(seeds).__name__}")
    if isinstance(reference, nn.Module):
        reference = evaluate_seeds(reference, task, seeds=seeds, **reading)
    if reference is not None and not isinstance(reference, Mapping):
        raise TypeError(f"expected reference to be a Module or Evaluations by seed, but got {type(reference).__name__}")
    theirs = reference or {}
    sizes = {name: len(getattr(task, name)) for name in SPLITS}
    for found in theirs.values():
        _check_same_data(found, task.kind, sizes)
    splits = {name: _read(model, task, name, reading) for name in SPLITS}
    # Where one class of the masks is to be forgotten, the retain splits hold every image already.
    names = ("retain_test",) if forgets_mask_class(task) else ("forget_test", "retain_test")
    held_out = [part for name in names if (part := splits[name]) is not None]
    test = _Samples(*(torch.cat(column) for column in zip(*held_out, strict=True))) if held_out else None
    columns = {name: score_columns(task, name) for name in SPLITS}
    scores = {name: _mean(part, columns[name], present=_asks_present(task, name)) for name, part in splits.items()}
    dice = None
    if task.kind == "segmentation":
        dice = {name: _mean(part, columns[name], _dice_of_iou) for name, part in splits.items()}
        dice["test"] = _mean(test, columns["retain"], _dice_of_iou)
    ranked, findings = None, None
    if task.kind == "multilabel":
        tables = {name: None if part is None else table(part.logits, part.truth) for name, part in splits.items()}
        tables["test"] = findings = None if test is None else table(test.logits, test.truth)
        ranked = {name: None if own is None else macro_auroc(own) for name, own in tables.items()}
    alone = Evaluation(
        kind=task.kind,
        sizes=sizes,
        forget=scores["forget"],
        retain=scores["retain"],
        forget_test=scores["forget_test"],
        retain_test=scores["retain_test"],
        test=_mean(test, columns["retain"]),
        membership=None,
        per_class=_per_class(test, task.num_classes),
        dice=dice,
        auroc=ranked,
        findings=findings,
    )
    mine = {seed: replace(alone, membership=_membership(splits, seed)) for seed in seeds}
    return {seed: beside(one, theirs[seed]) if seed in theirs else one for seed, one in mine.items()}


@checked
@standardized
def split_score(model: nn.Module, task: UnlearnTask, split: str, **reading: Unpack[Reading]) -> float | None:
    """Return the score of :func:`evaluate` on one split: accuracy, or for masks the IoU per image, then the mean.

    Returns:
        A share in [0, 1], None where the split is empty; ideal: the reference's value.

    Raises:
        ValueError: On an unknown split.
    """
    check_task(task)
    check_choice("split", split, SPLITS)
    part = _read(model, task, split, reading)
    return _mean(part, score_columns(task, split), present=_asks_present(task, split))


def _check_same_data(reference: Evaluation, kind: str, sizes: dict[str, int]) -> None:
    if not isinstance(reference, Evaluation):
        raise TypeError(f"expected reference to be a Module or an Evaluation, but got {type(reference).__name__}")
    if (reference.kind, reference.sizes) != (kind, sizes):
        raise ValueError(
            f"expected reference to be an evaluation of the same task, {kind} of {sizes}, "
            f"but got {reference.kind} of {reference.sizes}"
        )


def _read(model: nn.Module, task: UnlearnTask, split: str, reading: Reading) -> _Samples | None:
    scorer = {"classification": _label_scores, "segmentation": _image_scores, "multilabel": _finding_scores}[task.kind]

    def scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        whole = logits[:, 0] if task.kind == "multilabel" else logits  # findings stand where pixels do
        check_classes(whole, task.num_classes, task.kind)
        return scorer(logits, targets)

    found = map_batches([model], getattr(task, split), scores, **reading)
    if found is None:
        return None
    samples = _Samples(*found)
    # An image none of whose pixels has a label has no loss, and nothing to score.
    labelled = ~samples.losses.isnan()
    return _Samples(*(column[labelled] for column in samples)) if labelled.any() else None


def _label_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    none = torch.empty(len(logits), 0)
    return correct(logits, targets), loss(logits, targets), class_labels(logits, targets), none, none


def _image_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    # Masks are of no one class: a label of 0 for all makes "class-matched" mean "all of them".
    labels, none = torch.zeros(len(logits), dtype=torch.int64), torch.empty(len(logits), 0)
    return iou_scores(logits, targets, absent=math.nan), loss(logits, targets), labels, none, none


def _finding_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    # As masks, rows of findings are of no one class.
    labels = torch.zeros(len(logits), dtype=torch.int64)
    return right(logits, targets), loss(logits, targets), labels, logits[:, 0], class_labels(logits, targets)


def forgets_mask_class(task: UnlearnTask) -> bool:
    """Return whether one class of the masks is to be forgotten, so that images hold both what goes and what stays."""
    return task.kind == "segmentation" and bool(task.forget_classes)


def _asks_present(task: UnlearnTask, split: str) -> bool:
    """Return whether a split scores findings where they are present: those that are to be forgotten."""
    return task.kind == "multilabel" and bool(task.forget_classes) and split.startswith("forget")


def score_columns(task: UnlearnTask, split: str) -> list[int]:
    """Return the mask classes that count: the foreground, divided where one class of the masks is to be forgotten.

    Or the findings: all of them, divided where one is to be forgotten.
    """
    findings = task.kind == "multilabel"
    foreground = list(range(0 if findings else 1, task.num_classes))
    if not (forgets_mask_class(task) or (findings and task.forget_classes)):
        return foreground
    if split.startswith("forget"):
        return list(task.forget_classes)
    return [label for label in foreground if label not in task.forget_classes] or foreground


def _mean(
    part: _Samples | None,
    columns: list[int],
    change: Callable[[Tensor], Tensor] = lambda scores: scores,
    *,
    present: bool = False,
) -> float | None:
    """Return the mean over samples of the changed scores, where they are per class of ``columns`` alone.

    Of findings, with ``present``, those that are there.
    """
    if part is None:
        return None
    scores = change(part.scores)
    if part.truth.shape[1]:  # An image none of whose findings that count is known tells nothing.
        marks = scores[:, columns]
        marks = marks.masked_fill(part.truth[:, columns] != 1, math.nan) if present else marks
        return mean_of_judged(marks.nanmean(dim=1))
    return float((scores if scores.dim() == 1 else mean_of_present(scores[:, columns])).mean())


def _dice_of_iou(scores: Tensor) -> Tensor:
    # An identity for every single image and class, though not for means over them.
    return 2 * scores / (1 + scores)


def _per_class(test: _Samples | None, num_classes: int) -> dict[int, float | None] | None:
    if test is None:
        return None
    if test.scores.dim() == 1:
        return class_means(test.scores, test.labels, num_classes)
    if test.truth.shape[1]:
        return {k: mean_of_judged(own) for k, own in enumerate(test.scores.unbind(1))}
    return dict(enumerate(test.scores.nan_to_num(nan=1.0).mean(dim=0).tolist()))


def _membership(splits: dict[str, _Samples | None], seed: int) -> float | None:
    forget, forget_test, retain_test = (splits[name] for name in ("forget", "forget_test", "retain_test"))
    if forget is None:
        return None
    if forget_test is not None:
        return probability_smaller(forget.losses, forget_test.losses)
    if retain_test is None:
        return None
    matched = class_matched(forget.labels, retain_test.labels, seed)
    shared = torch.isin(forget.labels, retain_test.labels)
    return probability_smaller(forget.losses[shared], retain_test.losses[matched])
