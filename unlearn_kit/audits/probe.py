"""How much of what was forgotten can still be read off the frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import checked
from ..data.tensors import in_order, subset
from ..errors import check_count
from ..heads import head_name
from ..metrics.evaluate import forgets_mask_class, score_columns
from ..metrics.features import captured
from ..metrics.predict import Reading, class_labels, map_batches, mean_of_judged
from ..metrics.utility import correct, iou_scores, mean_of_present
from ..modules import check_model, device_of
from ..outputs import IGNORE, is_multi_hot
from ..seeding import derive, generator, isolated, standardized

if TYPE_CHECKING:
    from ..tasks import UnlearnTask


@dataclass(frozen=True)
class ProbeReport:
    """What :func:`linear_probe` found. Scores are those of ``metrics.evaluate``, in [0, 1].

    Attributes:
        forget: the probe's score on forget images that it was not fitted on; ideal: the reference's.
        retain: the same on retain images; None where there are none.
        fitted_on: images the probe was fitted on.
        reference: the reference's own probe, fitted and judged on the same images.
    """

    forget: float
    retain: float | None
    fitted_on: int
    reference: ProbeReport | None = None


@checked
@standardized
def linear_probe(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module | ProbeReport | None = None,
    *,
    limit: int = 5_000,
    pixels: int = 64,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> ProbeReport | None:
    """Fit a linear head on the frozen features of half of the forget and retain data; judge it on the other half.

    The features are the input of the declared head; the probe is a logistic regression on standardised features, with
    the true labels; of several findings one each. For masks each pixel has a feature vector (enlarged bilinearly where
    the head enlarges): some of an image's pixels fit the probe, all are judged. Where one class of the masks is
    forgotten, only retain images without it take part, since the others would come with two masks.

    High is no failure by itself: good features of other classes separate an unseen class too, which is what the
    reference's own probe shows.

    Args:
        model: the model to audit; untouched.
        task: what was forgotten and what was kept.
        reference: the retrained model, or its own report, so that it need not run again.
        limit: most images that are used, of the forget data and of the retain data each.
        pixels: how many pixels of an image fit the probe, drawn at random.
        seed: of the halves and the pixels; the caller's random state is untouched.
        **reading: see :class:`.predict.Reading`.

    Returns:
        A report, or None where there are fewer than two forget images, or no retain images to tell them from.

    Raises:
        ValueError: When no head is declared (``models.declare_head``), or its input is no tensor.
    """
    check_count("limit", limit, low=2)
    check_count("pixels", pixels)
    if isinstance(reference, nn.Module):
        reference = linear_probe(reference, task, limit=limit, pixels=pixels, seed=seed, **reading)
    kept = np.arange(len(task.retain))
    if forgets_mask_class(task) and task.forget_indices is not None:
        kept = np.setdiff1d(kept, task.forget_indices.numpy())
    forget, forget_judge = _halves(np.arange(len(task.forget)), limit, derive(seed, "probe", "forget"))
    retain, retain_judge = _halves(kept, limit, derive(seed, "probe", "retain"))
    if len(forget_judge) == 0 or (len(retain) == 0 and not forgets_mask_class(task)):
        return None

    def drawn(name: str, rows: np.ndarray) -> list[tuple[Tensor, ...]]:
        places = torch.rand(len(rows), pixels, generator=generator(seed, "probe", "pixels", name))
        found = _read(model, getattr(task, name), rows, lambda x, y, at: _draw(x, y, places[at]), reading)
        return [found] if found else []

    tables = drawn("forget", forget) + drawn("retain", retain)
    features, labels = (torch.cat(column).numpy() for column in zip(*tables, strict=True))
    probe: Any = _FindingProbes() if task.kind == "multilabel" else _classifier(len(np.unique(labels)) > 1)
    probe.fit(features, labels)

    def judged(name: str, rows: np.ndarray) -> float | None:
        def score(x: Tensor, y: Tensor, _at: slice) -> tuple[Tensor]:
            return (_score(probe, x, y, task.num_classes),)

        found = _read(model, getattr(task, name), rows, score, reading)
        if found is None:
            return None
        if task.kind == "multilabel":
            return mean_of_judged(found[0][:, score_columns(task, name)].nanmean(dim=1))
        scores = found[0] if found[0].dim() == 1 else mean_of_present(found[0][:, score_columns(task, name)])
        return float(scores.mean())

    score = judged("forget", forget_judge)
    if score is None:
        return None
    return ProbeReport(score, judged("retain", retain_judge), len(forget) + len(retain), reference)


def _halves(rows: np.ndarray, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(seed).permutation(rows)[:limit]
    return np.sort(chosen[0::2]), np.sort(chosen[1::2])


def _read(
    model: nn.Module,
    dataset: Any,
    rows: np.ndarray,
    function: Callable[[Tensor, Tensor, slice], tuple[Tensor, ...]],
    reading: Reading,
) -> tuple[Tensor, ...] | None:
    """Return ``function(features, labels, place among the rows)`` of the head's input, over all batches."""
    model = check_model(model)
    with isolated(0):
        inputs = next(in_order(subset(dataset, rows[:1])), None)
    if inputs is None:
        return None
    head, done = head_name(model, inputs[0].to(device_of(model))), 0
    with captured(model, [head], side="input") as held:

        def batch(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            nonlocal done
            x, y = held[head].cpu().double(), class_labels(logits, targets)
            if logits.dim() == 2 or is_multi_hot(targets):
                x = x.flatten(1)
            elif x.shape[2:] != logits.shape[2:]:
                x = F.interpolate(x, size=logits.shape[2:], mode="bilinear")
            at = slice(done, done := done + len(logits))
            return function(x, y, at)

        return map_batches([model], subset(dataset, rows), batch, **reading)


def _draw(x: Tensor, y: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return features ``(n, p)`` and labels ``(n,)``: one a sample.

    Of masks those at ``places`` ``(B, P)`` in [0, 1).
    """
    if x.dim() == 2:
        return x, y
    x, y = x.flatten(2), y.flatten(1)
    index = (places * y.shape[1]).long().clamp(max=y.shape[1] - 1)
    chosen = x.gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))
    x, y = chosen.movedim(1, 2).flatten(0, 1), y.gather(1, index).flatten()
    return x[y != IGNORE], y[y != IGNORE]


def _score(probe: Any, x: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return the accuracy ``(B,)``, or of masks the IoU of each class ``(B, C)``, NaN where it is absent."""
    rows = x.movedim(1, -1).flatten(0, -2) if x.dim() > 2 else x
    found = torch.from_numpy(probe.predict(rows.numpy())).view(y.shape)
    if is_multi_hot(y):
        return torch.where(y == IGNORE, math.nan, (found == y).double())
    logits = F.one_hot(found, num_classes).movedim(-1, 1).double()
    return correct(logits, y) if x.dim() == 2 else iou_scores(logits, y, absent=math.nan)


class _FindingProbes:
    """A probe of each finding, on the samples in which it is known; one that is known nowhere is said to be absent."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> None:
        self.probes = []
        for own in labels.T:
            known = own != IGNORE
            several = len(np.unique(own[known])) > 1
            self.probes.append(_classifier(several).fit(features[known], own[known]) if known.any() else None)

    def predict(self, features: np.ndarray) -> np.ndarray:
        absent = np.zeros(len(features), dtype=np.int64)
        return np.stack([absent if one is None else one.predict(features) for one in self.probes], axis=1)


def head_inputs(model: nn.Module, dataset: Any, **reading: Unpack[Reading]) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that a classifier's head is given ``(N, p)``, float64, and the labels ``(N,)``.

    Raises:
        ValueError: When no head is declared (``models.declare_head``), or its input is no tensor; on an empty data set.
    """
    found = _read(model, dataset, np.arange(len(dataset)), lambda x, y, _: (x, y), reading)
    if found is None:
        raise ValueError("expected at least one sample to take features of, but got an empty data set")
    return found[0].numpy(), found[1].numpy()


def logistic_regression() -> Any:
    """Return an unfitted logistic regression on standardised features.

    A convex problem solved to its end: the figure depends on no learning rate, order or seed, as one that the engine
    trains would.
    """
    with isolated(0):  # importing scikit-learn draws from the caller's random state
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _classifier(several: bool) -> Any:
    if several:
        return logistic_regression()
    with isolated(0):
        from sklearn.dummy import DummyClassifier

    return DummyClassifier()  # of a single class there is nothing to separate, which scikit-learn refuses
