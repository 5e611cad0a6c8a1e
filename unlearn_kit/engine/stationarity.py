"""How near the outer problem is to a stationary point, beside what theory says of stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.sampling import random_subset
from ..data.tensors import load_tensors
from ..errors import check_count
from ..losses import Batch, Goal, Objective, Target
from ..modules import device_of, evaluating
from ..schedules import rate_at
from ..seeding import derive, generator, isolated
from .callbacks import Callback, Run
from .phases import Phase


@checked
class Stationarity(Callback):
    """Measure the squared norm of the gradient of a phase's objective on fixed samples, at the first step and others.

    The samples, the targets' random numbers and what cached targets give are fixed for the run, so that the figures are
    of one function of the weights, in eval mode.

    Beside them stands the bound of stochastic gradient descent on a function of smoothness L (arXiv 1309.5549): with
    rates ``lr_t <= 1 / L`` and batches drawn independently of each other, whose gradients have variance v, the mean of
    the squared norms, weighted by the rates, is at most ``2 (F_0 - F_end) / sum lr + L v sum lr^2 / sum lr`` in
    expectation. L and v are estimates: L from changes of the gradient between measurements, v from the batches of a
    step on the fixed samples, at the first weights. So is the mean unless ``every`` is 1: the squared norms at the
    steps in between are interpolated, linearly in the sum of the rates.

    Streams are read in shuffled passes, and within a pass a batch depends on those before it. The bound is reported
    all the same: for shuffled batches it is measured (``proofs_notebooks``), not proved.

    Args:
        phase: The phase whose objective, streams and batches are meant.
        every: One measurement in as many steps, at a place in them that ``seed`` draws: at equal distances, each might
            follow the same batch of an epoch.
        samples: The most samples of each stream.
        seed: The seed of the choice of samples and steps.

    Attributes:
        records: One for each measurement: "step", "objective" and "squared_gradient".
        smoothness: The largest change of the gradient over a change of the weights, an estimate of L from below.
        variance: That of the gradient of a step's batches; None with too few samples.
    """

    def __init__(self, phase: Phase, *, every: int = 10, samples: int = 512, seed: int = 0) -> None:
        self.phase, self.seed = phase, seed
        self.every, self.samples = check_count("every", every), check_count("samples", samples)
        self.records: list[dict[str, float]] = []
        self.smoothness: float
        self.variance: float | None
        self.smoothness, self.variance = 0.0, None
        self._data: dict[str, tuple[Tensor, Tensor]] = {}
        self._tables: dict[str, dict[Target, Goal]] = {}
        self._last: tuple[Tensor, Tensor] | None = None
        self._trained: list[str] = []
        self._places: set[int] = set()

    def on_start(self, run: Run) -> None:
        """Choose the samples, fix their targets, and measure at the first weights."""
        objective = self.phase.terms
        self._trained = list(self.phase.trains(run.model))
        self.records, self._last = [], None
        starts = torch.arange(0, run.planned, self.every)
        shifts = torch.randint(self.every, starts.shape, generator=generator(self.seed, "stationarity", "steps"))
        self._places = {int(place) for place in starts + shifts if place < run.planned} | {run.planned}
        with isolated(derive(self.seed, "stationarity")), evaluating(run.model), torch.no_grad():
            for name in objective.streams:
                held = random_subset(self.phase.streams[name], self.samples, seed=derive(self.seed, name))
                x, y = load_tensors(held)
                self._data[name] = x.to(device_of(run.model)), y.to(device_of(run.model))
                whole = self._batch(name, slice(None), {})
                self._tables[name] = {target: target.target(whole) for target in objective.cached_targets(name)}
        self._measure(run, 0)
        self.variance = self._spread(run)

    def on_step(self, run: Run) -> None:
        """Measure when it is time, and at the last weights."""
        if run.done in self._places:
            self._measure(run, run.done)

    def details(self) -> dict[str, Any]:
        """Return what was measured, for ``UnlearnResult.details``.

        Returns:
            ``records``; ``mean``, of the squared norms at the weights that steps started from, weighted by their rates;
            its ``bound``, None where the theory would not apply to independent batches either; the estimates in that;
            and ``why`` it would not. Mean and bound are of the steps up to the last record.
        """
        planned, records = self._rates(), self.records
        rates = planned[: int(records[-1]["step"])] if records else []
        broken = self._broken(planned)
        mean = bound = None
        if sum(rates) > 0:
            weights = _weights([int(record["step"]) for record in records], rates)
            mean = sum(w * record["squared_gradient"] for w, record in zip(weights, records, strict=True)) / sum(rates)
        if not broken and self.variance is not None and sum(rates) > 0:
            fallen = max(0.0, records[0]["objective"] - records[-1]["objective"])
            noise = self.smoothness * self.variance * sum(rate**2 for rate in rates)
            bound = (2 * fallen + noise) / sum(rates)
        found = {"records": records, "smoothness": self.smoothness, "variance": self.variance}
        return {**found, "mean": mean, "bound": bound, "why": "; ".join(broken)}

    def _rates(self) -> list[float]:
        lr, total = self.phase.lr, self.phase.total_steps
        return [] if lr is None else [rate_at(lr, step, total) for step in range(total)]

    def _broken(self, rates: list[float]) -> list[str]:
        phase = self.phase
        made = phase.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
        plain = isinstance(made, torch.optim.SGD) and not any(
            group["momentum"] or group["weight_decay"] for group in made.param_groups
        )
        broken = [] if plain else ["not plain stochastic gradient descent"]
        if phase.clip is not None or phase.balance is not None:
            broken.append("gradients are clipped or balanced")
        if phase.batch_norm != "frozen":
            broken.append("batch norm moves")
        if sum(rates) == 0:
            broken.append("no lr that is known beforehand and above 0")
        if self.variance is None:
            broken.append("too few samples for the variance of a step's gradient")
        if rates and max(rates) * self.smoothness > 1:
            broken.append(f"lr is above 1 / L = {1 / self.smoothness:.3g}")
        return broken

    def _batch(self, name: str, rows: slice, tables: dict[Target, Goal]) -> Batch:
        x, y = self._data[name]
        indices = torch.arange(len(x))[rows]
        return Batch(x[rows], y[rows], indices, name, generator(self.seed, "stationarity", name), tables)

    def _parameters(self, run: Run) -> list[nn.Parameter]:
        """Return what the phase trains, the same at every measurement: before the first step, the flags are others."""
        return [run.model.get_parameter(name) for name in self._trained]

    def _gradient(self, run: Run, batches: dict[str, Batch], step: int) -> tuple[float, Tensor]:
        parameters = self._parameters(run)
        objective: Objective = self.phase.terms
        seed = derive(self.seed, "stationarity", "step")
        with isolated(seed), evaluating(run.model), torch.enable_grad(), _training(run.model, parameters):
            # Schedules of weights would make another function of every step: it is measured as it ends.
            total = objective.evaluate(run.model, batches, step=max(0, step - 1), total=self.phase.total_steps).total
            if not total.requires_grad:
                return float(total), torch.zeros(sum(p.numel() for p in parameters), device=total.device)
            gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
        return float(total.detach()), torch.cat([g.flatten() for g in gradients])

    def _measure(self, run: Run, step: int) -> None:
        batches = {name: self._batch(name, slice(None), self._tables[name]) for name in self._data}
        value, gradient = self._gradient(run, batches, step)
        weights = torch.cat([p.detach().flatten() for p in self._parameters(run)])
        if self._last is not None and (moved := float((weights - self._last[0]).norm())) > 0:
            self.smoothness = max(self.smoothness, float((gradient - self._last[1]).norm()) / moved)
        self._last = weights, gradient
        self.records.append({"step": step, "objective": value, "squared_gradient": float(gradient.square().sum())})

    def _spread(self, run: Run) -> float | None:
        """Return the variance of the gradient of a step's batches, at the first weights; None with too few samples."""
        sizes = {name: self.phase.batch_of(name) for name in self._data}
        count = min((len(self._data[name][0]) // size for name, size in sizes.items()), default=0)
        if count < 2:
            return None
        gradients = []
        for place in range(count):
            rows = {name: slice(place * size, (place + 1) * size) for name, size in sizes.items()}
            batches = {name: self._batch(name, rows[name], self._tables[name]) for name in sizes}
            gradients.append(self._gradient(run, batches, 0)[1])
        return float(torch.stack(gradients).var(dim=0).sum())


@contextmanager
def _training(model: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Take gradients for ``parameters`` alone; every parameter gets its own setting back."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = {id(parameter) for parameter in parameters}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _weights(places: list[int], rates: list[float]) -> list[float]:
    """Return what the record at each step of ``places`` weighs in the sum over all steps of rate times squared norm.

    A step between two records gives its rate to both, by where it lies between them in the sum of the rates: there the
    squared norm is interpolated, in the time of the gradient flow. A step at a record gives it all.
    """
    passed = [0.0, *accumulate(rates)]
    weights = dict.fromkeys(places, 0.0)
    for before, after in pairwise(places):
        for step, rate in enumerate(rates[before:after], start=before):
            # Where nothing moves in between, no rate is to be shared out.
            span = passed[after] - passed[before]
            share = (passed[step] - passed[before]) / span if span > 0 else 0.0
            weights[before] += (1 - share) * rate
            weights[after] += share * rate
    return [weights[place] for place in places]
