"""Two ways to train many networks of one architecture: one after the other, and all at once.

Both take the same steps: those that ``engine.train`` takes with the same seed.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from ..gradients import cross_entropy
from ..logits import giving_logits, hook
from ..outputs import decisions, is_binary
from ..schedules import Schedule, rate_at
from ..seeding import derive, generator, isolated
from .stacked import stackable

Stack = dict[str, Tensor]  # by name, every model's tensor along dimension 0
OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

# The engine derives its random numbers from the seed and this name of its only phase.
_PHASE = "0.train"


@dataclass(frozen=True)
class EnsembleRecipe:
    """How each model is trained; names as in ``engine.Phase``."""

    epochs: int
    batch_size: int
    lr: Schedule | Callable[[float], float]
    optimizer: str
    momentum: float
    weight_decay: float

    def batches(self, positions: Tensor, seed: int) -> list[Tensor]:
        """Return the positions ``(B,)`` of each step of a model trained on ``positions`` with ``seed``."""
        own, found = derive(seed, _PHASE), []
        for epoch in range(self.epochs):
            source = generator(own, "order", "train", epoch)
            found += positions[torch.randperm(len(positions), generator=source)].split(self.batch_size)
        return found


def sample_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return cross-entropy in nats ``(B,)``, of masks the mean over pixels, of findings over those that are known."""
    logits = decisions(logits, targets)
    if logits.dim() == 2 and not is_binary(logits):
        return F.cross_entropy(logits, targets.long(), reduction="none")
    return cross_entropy(logits, targets)


def train_alone(
    model: nn.Module, data: tuple[Tensor, Tensor], plan: Sequence[Tensor], recipe: EnsembleRecipe, seed: int
) -> None:
    """Train ``model`` in place, by the batches of ``plan``."""
    inputs, targets = data
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = {"momentum": recipe.momentum} if recipe.optimizer == "sgd" else {}
    optimizer = OPTIMIZERS[recipe.optimizer](parameters, lr=0.0, weight_decay=recipe.weight_decay, **options)
    model.train()
    with isolated(0), giving_logits(model):
        for step, chosen in enumerate(plan):
            _seed_draws(derive(seed, _PHASE, "step", step), inputs.device)
            loss = sample_losses(model(inputs[chosen]), targets[chosen]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.param_groups[0]["lr"] = rate_at(recipe.lr, step, len(plan))
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _seed_draws(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.manual_seed(seed)


def train_stacked(
    model: nn.Module,
    stack: Stack,
    data: tuple[Tensor, Tensor],
    plans: Sequence[Sequence[Tensor]],
    recipe: EnsembleRecipe,
) -> None:
    """Train the models of ``stack`` in place, all at once.

    ``model`` gives the architecture; ``plans`` the batches of each model, those with most steps first: models that are
    done are the last ones, and no longer take part. Batches of different sizes are filled up with samples that weigh
    nothing, in the loss and in batch statistics.
    """
    inputs, targets = data
    network, rows = stackable(model.train())
    hook(network)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]

    def loss(state: Stack, x: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        rows.weights = weights
        losses = sample_losses(functional_call(network, state, (x,)), y)
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    update = _Update(stack, trained, recipe)
    norms = any(isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules())
    with isolated(0), quiet_vmap():
        for step in range(len(plans[0])):
            active = [plan for plan in plans if len(plan) > step]
            batches = [plan[step] for plan in active]
            chosen, weights = _filled(batches, inputs)
            if norms and weights is not None and min(len(batch) for batch in batches) == 1:
                _check_single(model, inputs[:1])
            state = {name: value[: len(active)] for name, value in stack.items()}
            for name in trained:
                state[name] = state[name].detach().requires_grad_()
            dims = (0, 0, 0, None if weights is None else 0)
            total = vmap(loss, in_dims=dims)(state, inputs[chosen], targets[chosen], weights).sum()
            gradients = torch.autograd.grad(total, [state[name] for name in trained])
            update(gradients, len(active), [rate_at(recipe.lr, step, len(plan)) for plan in active])
    rows.weights = None


def _filled(batches: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return positions ``(n, B)`` of all batches, and 0/1 weights ``(n, B)`` where they differ in size."""
    sizes = {len(batch) for batch in batches}
    if len(sizes) == 1:
        return torch.stack(list(batches)), None
    chosen = nn.utils.rnn.pad_sequence(list(batches), batch_first=True)
    weights = nn.utils.rnn.pad_sequence([like.new_ones(len(batch)) for batch in batches], batch_first=True)
    return chosen, weights


def _check_single(model: nn.Module, x: Tensor) -> None:
    """Raise what torch raises where a batch norm gets one value a channel."""
    with isolated(0), torch.no_grad():
        network, _ = stackable(model)
        network.train()(x)


class _Update:
    """The step of torch's optimisers of the same names, on stacks of which a part may be done."""

    def __init__(self, stack: Stack, trained: Sequence[str], recipe: EnsembleRecipe) -> None:
        self.values, self.recipe, self.steps = [stack[name] for name in trained], recipe, 0
        moments = 1 if recipe.optimizer == "sgd" else 2
        self.moments = [[torch.zeros_like(value) for value in self.values] for _ in range(moments)]

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor], active: int, rates: list[float]) -> None:
        self.steps += 1
        own = [value[:active] for value in self.values]
        moments = [[value[:active] for value in kept] for kept in self.moments]
        same = len(set(rates)) == 1
        rate = own[0].new_tensor(rates)
        for place, (value, g) in enumerate(zip(own, gradients, strict=True)):
            lr: Any = rates[0] if same else rate.view(-1, *[1] * (value.dim() - 1))
            step = self._sgd if self.recipe.optimizer == "sgd" else self._adam
            step(value, g, lr, *(kept[place] for kept in moments))

    def _sgd(self, value: Tensor, g: Tensor, lr: Any, momentum: Tensor) -> None:
        momentum.mul_(self.recipe.momentum).add_(g).add_(value, alpha=self.recipe.weight_decay)
        _move(value, momentum, lr)

    def _adam(self, value: Tensor, g: Tensor, lr: Any, first: Tensor, second: Tensor) -> None:
        decay = self.recipe.weight_decay
        if self.recipe.optimizer == "adamw":
            value.mul_(1 - lr * decay)
        else:
            g = g + decay * value
        first.lerp_(g, 0.1)
        second.mul_(0.999).addcmul_(g, g, value=0.001)
        scale = (second.sqrt() / math.sqrt(1 - 0.999**self.steps)).add_(1e-8)
        _move(value, first / scale, lr / (1 - 0.9**self.steps))


def _move(value: Tensor, direction: Tensor, lr: Any) -> None:
    if isinstance(lr, Tensor):
        value.addcmul_(direction, lr, value=-1)
    else:
        value.add_(direction, alpha=-lr)


@contextmanager
def quiet_vmap() -> Iterator[None]:
    """Silence torch's advice that some operation under ``vmap`` is a loop: what is slow is not chosen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def stack_of(models: Sequence[nn.Module]) -> Stack:
    """Return copies of all parameters and buffers, stacked."""
    held = [dict([*m.named_parameters(), *m.named_buffers()]) for m in models]
    return {name: torch.stack([one[name].detach() for one in held]) for name in held[0]}


@torch.no_grad()
def unstack_into(model: nn.Module, stack: Stack, place: int) -> nn.Module:
    """Write one model's tensors of the stack into ``model``, and return it."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.copy_(stack[name][place])
    return model


def reason_against(model: nn.Module, data: tuple[Tensor, Tensor], recipe: EnsembleRecipe) -> str | None:
    """Return why these networks cannot be trained at once; None when they can.

    Tried, not guessed: one step of two copies on batches of two sizes, both ways, must move every tensor alike.
    """
    plain = replace(recipe, optimizer="sgd", lr=lambda _: 1.0, momentum=0.0, weight_decay=0.0)
    pair = [copy.deepcopy(model) for _ in range(2)]
    device = data[0].device
    plans = [[torch.arange(min(size, len(data[0])), device=device)] for size in (6, 4)]
    before, stack = stack_of(pair), stack_of(pair)
    try:
        train_stacked(copy.deepcopy(pair[0]), stack, data, plans, plain)
    except (RuntimeError, ValueError) as error:
        return str(error).strip().splitlines()[0]
    for network, plan in zip(pair, plans, strict=True):
        train_alone(network, data, plan, plain, 0)
    alone = stack_of(pair)
    for name, value in alone.items():
        moved, difference = (value - before[name]).abs().max(), (value - stack[name]).abs().max()
        if difference > 1e-2 * moved + 1e-4:
            return f"{name!r} moves otherwise than by itself"
    return None
