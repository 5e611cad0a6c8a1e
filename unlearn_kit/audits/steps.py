"""The steps of a shadow-model audit: train, revise, read margins. The same in whichever process they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, TensorDataset

from ..adapters import plain
from ..data.tensors import TensorImages, load_tensors
from ..seeding import derive, isolated
from .ensemble_training import Stack
from .ensembles import Ensemble, train_ensemble
from .margins import ensemble_margins

if TYPE_CHECKING:
    from ..tasks import UnlearnTask

KINDS = ("oracle", "original")

# Networks that are run at once for their margins: with more, the activations of small images no longer fit the caches.
# How many there are may change the last bits, and so is the same however many processes share the work.
AT_ONCE = 8


class AuditSteps:
    """A request, read once, and what an audit does with it. Pickled without the data that it has read.

    Attributes:
        splits: "forget", "retain" and "held_out" data, in memory.
        template: the architecture, in eval mode.
    """

    def __init__(
        self, build: Callable[[], nn.Module], task: UnlearnTask, models: int, seed: int, training: Mapping[str, Any]
    ) -> None:
        self.build, self.task, self.models, self.seed, self.training = build, task, models, seed, dict(training)
        tests = [part for part in (task.forget_test, task.retain_test) if len(part)]
        given = {"forget": task.forget, "retain": task.retain, "held_out": ConcatDataset(tests) if tests else []}
        with isolated(0):
            self.splits: dict[str, Any] = {
                name: TensorDataset(*load_tensors(d)) if len(d) else [] for name, d in given.items()
            }
        with isolated(derive(seed, "template")):
            self.template = build().eval()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.build, self.task, self.models, self.seed, self.training)

    def unlearning_seed(self, place: int) -> int:
        """Return the seed that a method is given with original ``place``."""
        return derive(self.seed, "unlearning", place)

    def train(self, kind: str, progress: Callable[[int, int], None] | None = None) -> Stack:
        """Return all oracles, or all originals."""
        retain, forget = self.splits["retain"], self.splits["forget"]
        parts = [retain] if kind == "oracle" else [retain, forget]
        inputs, targets = (torch.cat(tensors) for tensors in zip(*(p.tensors for p in parts), strict=True))
        return train_ensemble(
            self.build,
            TensorImages(inputs, targets),
            [torch.arange(len(inputs))] * self.models,
            seeds=[derive(self.seed, kind, place) for place in range(self.models)],
            progress=progress,
            **self.training,
        ).stack

    def revise(
        self, algorithm: Callable[..., Any], options: Mapping[str, Any], place: int, original: nn.Module
    ) -> nn.Module:
        """Return the ``original`` of that place after ``algorithm``, without adapters."""
        found = algorithm(original, self.task, seed=self.unlearning_seed(place), **options)
        return plain(getattr(found, "model", found))

    def margins(self, ensemble: Ensemble) -> dict[str, Tensor]:
        """Return margins ``(n, S)`` by split of a few networks."""
        return {name: ensemble_margins(ensemble, data) for name, data in self.splits.items()}


def blocks(ensemble: Ensemble) -> Iterator[Ensemble]:
    """Yield an ensemble by :data:`AT_ONCE` networks, copied: a window would be sent with all that it is a window of."""
    for start in range(0, len(ensemble), AT_ONCE):
        part = {name: value[start : start + AT_ONCE].clone() for name, value in ensemble.stack.items()}
        yield Ensemble(ensemble.template, part, ensemble.mode)


def check_same(template: nn.Module, model: nn.Module) -> None:
    """Raise ValueError where the weights of ``model`` could not be those of ``template``."""
    mine, theirs = (
        {name: (value.shape, value.dtype) for name, value in [*m.named_parameters(), *m.named_buffers()]}
        for m in (template, model)
    )
    if type(template) is not type(model) or mine != theirs:
        raise ValueError(
            f"expected algorithm to return the architecture it was given, but got a {type(model).__name__} "
            f"of other tensors than the {type(template).__name__}'s"
        )
