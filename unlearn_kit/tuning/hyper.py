"""Gradients of what a run leads to, with respect to the weights of its losses: through every step of the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..arguments import check_type, checked
from ..errors import check_choice, check_count, check_number
from ..gradients import plain_attention, trainable
from ..logits import hook
from ..losses import Batch, Objective, Term
from ..modules import check_model, frozen_copy
from ..outputs import check_finite, decisions, is_ignored, label_margin
from ..schedules import ScalarOrSchedule, check_scalar_or_schedule, rate_at
from ..seeding import standardized

Knobs = Mapping[str, Tensor]


class Fast:
    """A module with other weights: called as it, with the weights of this step of the unrolled run."""

    def __init__(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        self.module, self.weights = module, weights
        self.buffers, self.modules = module.buffers, module.modules

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs ``(B, C, ...)``."""
        outputs: Tensor = functional_call(self.module, self.weights, (inputs,))
        return outputs

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Return the weights in training, by name."""
        return iter(self.weights.items())

    def parameters(self) -> Iterator[Tensor]:
        """Return the weights in training."""
        return iter(self.weights.values())


Loss = Callable[[Fast, Any, Knobs], Tensor]
Level = Callable[[Fast, Knobs], Tensor]


@dataclass(frozen=True, eq=False)
class Unrolled:
    """What a run led to, and how that depends on the knobs.

    Attributes:
        level: the value at the end.
        gradients: its derivative with respect to each knob.
        parameters: the weights at the end, by name.
    """

    level: float
    gradients: dict[str, float]
    parameters: dict[str, Tensor]


@checked
@standardized
def unroll(
    model: nn.Module,
    loss: Loss,
    level: Level,
    knobs: Mapping[str, float],
    batches: Sequence[Any],
    *,
    lr: ScalarOrSchedule = 1e-2,
    momentum: float = 0.0,
    clip: float | None = None,
) -> Unrolled:
    """Train a copy of ``model`` by SGD, one step a batch, and differentiate ``level`` of the result through all of it.

    Eval mode throughout: batch norm frozen, no dropout. Memory grows with the number of steps, each of which is kept.

    Args:
        model: where training starts; its parameters that require a gradient are trained.
        loss: ``loss(model, batch, knobs)``, a scalar; the knobs are 0-dim tensors.
        level: ``level(model, knobs)`` at the end, a scalar: differentiable, on held-out data.
        knobs: the point at which to differentiate: loss weights, closeness, noise, the scale of an adapter, by name.
        batches: one a step, as ``loss`` takes them.
        lr: a float or a schedule over the steps.
        momentum, clip: as in ``engine.Phase``.

    Raises:
        ValueError: When an argument is out of range, by its name. On a level that is not finite.
        TypeError: When an argument is of another type, by its name.

    Source: arXiv 1910.01727 (higher); reverse-mode hypergradients, arXiv 1703.01785.
    """
    import higher

    model = check_model(model)
    check_scalar_or_schedule("lr", lr, low=0)
    check_number("momentum", momentum, low=0, high=1, open_high=True)
    if clip is not None:
        check_number("clip", clip, low=0, open_low=True)
    if not knobs:
        raise ValueError("expected at least one knob, but got none")
    weights = trainable(model)
    first = next(iter(weights.values()))
    turned = {
        name: torch.tensor(check_number(f"knob {name!r}", value), dtype=first.dtype, device=first.device)
        for name, value in knobs.items()
    }
    for tensor in (*turned.values(), *weights.values()):
        tensor.requires_grad_(True)
    # A copy, since adapters are told their scale in place; its own weights are never used.
    frozen, steps = frozen_copy(model), len(batches)
    hook(frozen)

    def clipped(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        if clip is None:
            return list(gradients)
        norm = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        factor = (clip / (norm + 1e-6)).clamp(max=1)
        return [None if g is None else g * factor for g in gradients]

    optimizer = torch.optim.SGD(list(weights.values()), lr=rate_at(lr, 0, steps), momentum=momentum)
    stepper = higher.get_diff_optim(optimizer, list(weights.values()))
    with plain_attention(), torch.enable_grad():
        for step, batch in enumerate(batches):
            value = loss(Fast(frozen, weights), batch, turned)
            check_type("what loss returns", value, Tensor)
            rate = {"lr": [rate_at(lr, step, steps)]}
            moved = stepper.step(value, params=weights.values(), override=rate, grad_callback=clipped)
            weights = dict(zip(weights, moved, strict=True))
        reached = level(Fast(frozen, weights), turned)
        check_type("level", reached, Tensor)
        check_finite("level", reached)
        gradients = torch.autograd.grad(reached, list(turned.values()), allow_unused=True, materialize_grads=True)
    parameters = {name: p.detach() for name, p in weights.items()}
    slopes = {name: float(g) for name, g in zip(turned, gradients, strict=True)}
    return Unrolled(float(reached.detach()), slopes, parameters)


@checked
def weighted(objective: Objective | Term, weights: Mapping[str, str]) -> Loss:
    """Return a loss for :func:`unroll`: the objective, with the weights of some terms turned into knobs.

    Args:
        objective: terms whose other weights are numbers; batches are dicts of ``losses.Batch`` by stream.
        weights: of each such term's name, the name of its knob. Its own weight multiplies the knob.

    Raises:
        ValueError: On a name that is no term's.
    """
    terms = Objective(objective._terms).terms
    for name in weights:
        check_choice("every name in weights", name, [term.name for term in terms])

    def loss(model: Fast, batches: Mapping[str, Batch], knobs: Knobs) -> Tensor:
        found = Objective(terms).evaluate(cast(nn.Module, model), batches)
        parts = []
        for term in terms:
            if term.name in found.parts:
                knob = knobs[weights[term.name]] if term.name in weights else 1.0
                parts.append(knob * (term.weight.at(0, 1) * found.parts[term.name]))
        return torch.stack(parts).sum()

    return loss


@checked
def expected_accuracy(inputs: Tensor, targets: Tensor) -> Level:
    """Return a level for :func:`unroll`: the mean probability of the true class, in [0, 1]."""

    def level(model: Fast, knobs: Knobs) -> Tensor:  # noqa: ARG001
        confidence = label_margin(decisions(model(inputs), targets), targets).sigmoid()
        return confidence[~is_ignored(targets).reshape(confidence.shape)].mean()

    return level


@checked
def scale_adapters(model: Fast, factor: Tensor) -> None:
    """Let all low-rank adapters act ``factor`` times as strongly as attached: to be called in ``loss`` and ``level``.

    Gradients flow to ``factor``, a knob.

    Raises:
        ValueError: When there are no adapters.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    if not layers:
        raise ValueError("expected model to have low-rank adapters, but got none")
    for layer in layers:
        for name in layer.scaling:
            layer.scaling[name] = factor * (layer.lora_alpha[name] / layer.r[name])


@dataclass(frozen=True)
class Reached:
    """The way to a wanted level.

    Attributes:
        knob: its last value.
        level: reached there.
        runs: inner runs, each of which is one entry of ``tried``: (knob, level, derivative).
    """

    knob: float
    level: float
    runs: int
    tried: list[tuple[float, float, float]] = field(default_factory=list)


@checked
def newton(
    run: Callable[[float], Unrolled],
    knob: str,
    start: float,
    *,
    wanted: float,
    bounds: tuple[float, float],
    tolerance: float = 0.02,
    budget: int = 12,
) -> Reached:
    """Follow the hypergradient of one positive knob to where the level is ``wanted``: Newton steps in its logarithm.

    A step that would leave what is known to hold the answer is replaced by the middle of that.

    Args:
        run: ``unroll`` as a function of the knob's value.
        knob: its name in the gradients.
        start: where to begin, within ``bounds``.
        wanted: the level.
        bounds: smallest and largest value, above 0.
        tolerance: how near is near enough.
        budget: runs at most.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
    """
    low, high = (math.log(check_number("bounds", b, low=0, open_low=True)) for b in bounds)
    check_number("start", start, low=bounds[0], high=bounds[1])
    check_number("tolerance", tolerance, low=0)
    check_count("budget", budget)
    at, tried = math.log(start), []
    for _ in range(budget):
        found = run(math.exp(at))
        check_type("what run returns", found, Unrolled)
        check_choice("knob", knob, found.gradients)
        slope = found.gradients[knob] * math.exp(at)  # with respect to the logarithm
        tried.append((math.exp(at), found.level, found.gradients[knob]))
        short = wanted - found.level
        if abs(short) <= tolerance:
            break
        if slope != 0:
            low, high = (at, high) if short * slope > 0 else (low, at)
        aim = at + short / slope if slope != 0 else (low + high) / 2
        at = aim if low < aim < high else (low + high) / 2
    best = min(tried, key=lambda row: abs(row[1] - wanted))
    return Reached(best[0], best[1], len(tried), tried)
