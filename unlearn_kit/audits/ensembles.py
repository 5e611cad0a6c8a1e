"""Many networks of one architecture, trained at once: the shadow models that audits compare with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..arguments import checked
from ..checkpoints import load_tensors_file, save_tensors
from ..data.checks import check_dataset
from ..data.tensors import as_tensor, in_order, load_tensors
from ..errors import CheckpointError, DivergenceError, check_choice, check_count, check_number
from ..logits import giving_logits
from ..modules import blank_copy, built, check_device, check_model
from ..outputs import check_finite
from ..schedules import ScalarOrSchedule, check_scalar_or_schedule, cosine, is_schedule
from ..seeding import isolated, standardized
from .ensemble_training import (
    OPTIMIZERS,
    EnsembleRecipe,
    Stack,
    quiet_vmap,
    reason_against,
    stack_of,
    train_alone,
    train_stacked,
    unstack_into,
)
from .stacked import stackable

Mode = Literal["auto", "vmap", "sequential"]


@dataclass(frozen=True)
class Ensemble:
    """N networks of one architecture.

    Attributes:
        template: the architecture; its own weights mean nothing.
        stack: parameters and buffers by name, ``(N, *shape)``.
        mode: how they were trained, and are run: "vmap" or "sequential".
        timings: measured seconds a model and step by mode, where the mode was chosen by measurement.
        reason: why they could not be trained at once; None where they could, or were not asked to.
        seconds: wall time of training.
    """

    template: nn.Module = field(repr=False)
    stack: Stack = field(repr=False)
    mode: str = "vmap"
    timings: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, models: Sequence[nn.Module], mode: str = "vmap") -> Ensemble:
        """Return networks that exist already, copied.

        Raises:
            ValueError: When there is none, or their tensors do not fit.
        """
        if not models:
            raise ValueError("expected at least one model, but got none")
        models = [check_model(model) for model in models]
        for model in models:
            _check_same(models[0], model)
        return cls(blank_copy(models[0]).eval(), stack_of(models), check_choice("mode", mode, get_args(Mode)[1:]))

    def __len__(self) -> int:
        return len(next(iter(self.stack.values())))

    def __getitem__(self, place: int) -> nn.Module:
        """Return a network of its own, in eval mode."""
        return unstack_into(blank_copy(self.template), self.stack, range(len(self))[place]).eval()

    def models(self) -> Iterator[nn.Module]:
        """Return each network in turn, in eval mode."""
        return (self[place] for place in range(len(self)))

    def outputs(self, dataset: Any, *, batch_size: int = 512, chunk: int = 64) -> Tensor:
        """Return logits ``(N, samples, C, ...)`` on the CPU; ``chunk`` networks are run at once. Empty: ``(N, 0)``.

        Raises:
            ValueError: On logits that are not finite.
        """
        check_count("chunk", chunk)
        at_once = chunk if self.mode == "vmap" else 1
        device = next(iter(self.stack.values())).device
        columns = []
        with isolated(0), torch.no_grad(), giving_logits(self.template), quiet_vmap():
            network = stackable(self.template)[0].eval()
            for x, _ in in_order(dataset, batch_size, device=device):
                rows = []
                for start in range(0, len(self), at_once):
                    if at_once == 1:
                        rows.append(functional_call(self.template, self._part(start, 1, squeeze=True), (x,))[None])
                    else:
                        run = vmap(lambda state, x=x: functional_call(network, state, (x,)))
                        rows.append(run(self._part(start, at_once)))
                columns.append(torch.cat(rows).cpu())
        found = torch.cat(columns, dim=1) if columns else torch.empty(len(self), 0)
        check_finite("logits", found)
        return found

    def _part(self, start: int, size: int, *, squeeze: bool = False) -> Stack:
        return {name: value[start] if squeeze else value[start : start + size] for name, value in self.stack.items()}

    def save(self, path: str | Path) -> Path:
        """Write all networks to ``path`` (safetensors), whole or not at all."""
        return save_tensors(self.stack, path, {"mode": self.mode})

    @classmethod
    def load(cls, template: nn.Module, path: str | Path) -> Ensemble:
        """Return the networks that :meth:`save` wrote; ``template`` gives the architecture and is copied.

        Raises:
            CheckpointError: When the file is damaged or of another architecture.
            FileNotFoundError: When there is none.
        """
        stack, header = load_tensors_file(path)
        wanted, sizes = stack_of([template]), {len(value) for value in stack.values() if value.dim()}
        fits = stack.keys() == wanted.keys() and len(sizes) == 1
        if not fits or any(stack[name].shape[1:] != value.shape[1:] for name, value in wanted.items()):
            raise CheckpointError(f"{str(path)!r} does not hold an ensemble of this {type(template).__name__}")
        return cls(blank_copy(template).eval(), stack, header.get("mode", "vmap"))


@checked
@standardized
def train_ensemble(
    build: Callable[[], nn.Module],
    dataset: Any,
    subsets: Sequence[Sequence[int] | Tensor],
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int = 128,
    lr: ScalarOrSchedule = 0.05,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    mode: Mode = "auto",
    chunk: int = 64,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Train one network on each subset of a data set.

    Up to rounding, network i is what ``engine.train(build(), subset i, seed=seeds[i], ...)`` gives when ``build`` draws
    its weights from a random state seeded with ``seeds[i]``: the same batches in the same order, the same steps, batch
    statistics of its own. Subsets may differ in length. The data are read once, so random augmentation is frozen.

    Args:
        build: makes a network with fresh weights; called once a network.
        dataset: map-style, of ``(input, target)``; held in memory.
        subsets: positions in the data set, or a bool mask over it, for each network.
        seeds: of weights and data order, one a network.
        epochs, batch_size, optimizer, momentum, weight_decay: as in ``engine.Phase``.
        lr: falls along half a cosine to 0, as in ``engine.train``; a schedule is taken as it is.
        mode: "vmap" trains ``chunk`` networks at once; "sequential" one after the other, and is needed where layers
            draw random numbers or keep state other than a batch norm's; "auto" measures both for a few steps on copies;
            which is quicker may differ from run to run, and the networks then differ by rounding.
        chunk: networks at once; memory grows with it.
        device: where to train and keep them (default: the CPU).
        progress: called with networks done and in all.

    Raises:
        ValueError: When an argument is out of range, by its name, also when mode="vmap" cannot train these networks.
        TypeError: When an argument is of another type, by its name, also when mode="vmap" cannot train these networks.
        DivergenceError: Naming a network whose weights are no longer finite.
    """
    recipe = _recipe(epochs, batch_size, lr, optimizer, momentum, weight_decay)
    check_choice("mode", mode, get_args(Mode))
    check_count("chunk", chunk)
    check_dataset("dataset", dataset, empty=False)
    if len(subsets) == 0 or len(subsets) != len(seeds):
        raise ValueError(f"expected one seed for each of some subsets, but got {len(subsets)} and {len(seeds)} seeds")
    started = time.perf_counter()
    with isolated(0):
        there = check_device("cpu" if device is None else device)
        inputs, targets = (tensor.to(there) for tensor in load_tensors(dataset))
    positions = [_positions(place, chosen, len(inputs)).to(inputs.device) for place, chosen in enumerate(subsets)]
    template = _built(build, seeds[0], inputs.device)
    # Those with most steps first, so that each chunk holds networks of about the same length.
    order = sorted(range(len(positions)), key=lambda place: -epochs * math.ceil(len(positions[place]) / batch_size))

    def plans(places: Sequence[int]) -> list[list[Tensor]]:
        # Of a chunk at a time: those of all networks hold every epoch's order of each.
        return [recipe.batches(positions[place], seeds[place]) for place in places]

    data, timings, reason = (inputs, targets), {}, None
    if mode != "sequential" and epochs:
        reason = reason_against(template, data, recipe)
        if mode == "vmap" and reason is not None:
            raise ValueError(f"expected networks that can be trained at once, but got {reason}; use mode='sequential'")
        if mode == "auto" and reason is None:
            timings = _measure(template, data, plans(order[:chunk]), recipe)
    chosen_mode = mode if mode != "auto" else min(timings, key=lambda name: timings[name], default="sequential")
    parts: list[Stack] = []
    at_once = chunk if chosen_mode == "vmap" else 1
    for start in range(0, len(order), at_once):
        places = order[start : start + at_once]
        models = [_built(build, seeds[place], inputs.device) for place in places]
        for model in models:
            _check_same(template, model)
        if chosen_mode == "sequential":
            train_alone(models[0], data, plans(places)[0], recipe, seeds[places[0]])
        parts.append(stack_of(models))
        if chosen_mode == "vmap":
            train_stacked(models[0], parts[-1], data, plans(places), recipe)
        _check_trained(parts[-1], places, start + len(places))
        if progress is not None:
            progress(start + len(places), len(order))
    back = torch.tensor(order).argsort().to(inputs.device)
    stack = {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}
    return Ensemble(template.eval(), stack, chosen_mode, timings, reason, time.perf_counter() - started)


def _recipe(
    epochs: int, batch_size: int, lr: ScalarOrSchedule, optimizer: str, momentum: float, weight_decay: float
) -> EnsembleRecipe:
    check_scalar_or_schedule("lr", lr, low=0)
    rate: Any = lr if is_schedule(lr) else cosine(float(lr), 0.0)  # type: ignore[arg-type]
    return EnsembleRecipe(
        check_count("epochs", epochs, low=0),
        check_count("batch_size", batch_size),
        rate,
        check_choice("optimizer", optimizer, OPTIMIZERS),
        check_number("momentum", momentum, low=0, high=1, open_high=True),
        check_number("weight_decay", weight_decay, low=0),
    )


def _positions(place: int, chosen: Sequence[int] | Tensor, size: int) -> Tensor:
    found = as_tensor(chosen)
    if found.dtype == torch.bool and found.shape == (size,):
        found = found.nonzero()[:, 0]
    if found.dtype == torch.bool or found.is_floating_point() or found.dim() != 1 or len(found) == 0:
        raise ValueError(
            f"expected subsets[{place}] to be positions, or a mask of shape ({size},) that is not all False, "
            f"but got {found.dtype} of shape {tuple(found.shape)}"
        )
    if found.min() < 0 or found.max() >= size:
        raise ValueError(
            f"expected subsets[{place}] to be positions in 0..{size - 1}, "
            f"but got {int(found.min())}..{int(found.max())}"
        )
    return found.long().cpu()


def _built(build: Callable[[], nn.Module], seed: int, device: torch.device) -> nn.Module:
    with isolated(seed):
        return built(build).to(device)


def _check_same(first: nn.Module, other: nn.Module) -> None:
    mine, theirs = (
        [(name, value.shape) for name, value in [*m.named_parameters(), *m.named_buffers()]] for m in (first, other)
    )
    if type(first) is not type(other) or mine != theirs:
        raise ValueError("expected networks of one architecture, but got tensors of different names or shapes")


def _measure(
    template: nn.Module,
    data: tuple[Tensor, Tensor],
    plans: Sequence[Sequence[Tensor]],
    recipe: EnsembleRecipe,
    steps: int = 4,
) -> dict[str, float]:
    """Return seconds a model and step, both ways, on copies."""

    def seconds(run: Callable[[int], None]) -> float:
        run(1)  # The first step makes what later ones find made.
        began = time.perf_counter()
        run(steps)
        return (time.perf_counter() - began) / steps

    def at_once(count: int) -> None:
        train_stacked(blank_copy(template), stack_of([template] * len(plans)), data, [p[:count] for p in plans], recipe)

    def alone(count: int) -> None:
        train_alone(blank_copy(template), data, plans[0][:count], recipe, 0)

    return {"vmap": seconds(at_once) / len(plans), "sequential": seconds(alone)}


def _check_trained(stack: Stack, places: Sequence[int], step: int) -> None:
    for name, value in stack.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = next(i for i in range(len(places)) if not torch.isfinite(value[i]).all())
            state = {key: tensor[bad].cpu().clone() for key, tensor in stack.items()}
            raise DivergenceError(f"ensemble, network {places[bad]}", step, name, state)
