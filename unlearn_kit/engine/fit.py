"""The one training loop, for every method that trains."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.tensors import iterate
from ..errors import DivergenceError, check_count
from ..losses import Batch, Goal, Target
from ..modules import batch_norms, check_model, cpu_state, device_of
from ..schedules import value_at
from ..seeding import derive, generator, isolated, seed_everything
from .callbacks import Callback, Run
from .phases import Alternate, Leg, Phase, plan
from .resume import fingerprint, load_run, save_run
from .streams import Stream

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class FitResult:
    """A trained copy of the model, the log, wall seconds, and why the run ended early (None: it did not)."""

    model: nn.Module
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def fit(
    model: nn.Module,
    program: Phase | Alternate | Sequence[Phase | Alternate],
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    callbacks: Sequence[Callback] = (),
    log_every: int = 10,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    accelerator: Accelerator | None = None,
) -> FitResult:
    """Train a copy of ``model`` through the phases of ``program``.

    The model, its buffers, the data and the caller's random state stay as they are. The same seed on the same machine
    with the same number of threads gives the same bits, resumed or not: the random numbers of each step depend on the
    seed, the phase and the step alone.

    Args:
        model: logits ``(B, C, ...)``.
        program: phases, or alternations of phases, in order.
        seed: of data order, dropout and random targets.
        device: where to train (default: where the model is).
        callbacks: called at the joints of the run, in order.
        log_every: steps between records of the history; the first and last step of a phase are always logged.
        checkpoint: a file that the run is saved to and, when it exists, continued from.
        checkpoint_every: steps between saves.
        accelerator: an ``accelerate.Accelerator``, for mixed precision or several devices; every process is then given
            its share of each batch. None: one device in the model's own precision, without that library.

    Raises: DivergenceError when a loss or a weight is no longer finite; CheckpointError when the checkpoint is of
        another run; ValueError, TypeError on a program that does not fit the model or the data (before anything is trained).
    """
    check_model(model)
    check_count("log_every", log_every)
    check_count("checkpoint_every", checkpoint_every)
    where = accelerator.device if accelerator is not None else torch.device(device or device_of(model))
    with isolated(derive(seed, "fit")):
        student = copy.deepcopy(model).to(where)
        return _Trainer(
            student,
            plan(program),
            seed,
            where,
            callbacks,
            log_every,
            checkpoint,
            checkpoint_every,
            accelerator,
        ).run_all()


class _Trainer:
    def __init__(
        self,
        model: nn.Module,
        legs: list[Leg],
        seed: int,
        device: torch.device,
        callbacks: Sequence[Callback],
        log_every: int,
        checkpoint: str | Path | None,
        checkpoint_every: int,
        accelerator: Accelerator | None,
    ) -> None:
        self.model, self.legs, self.seed, self.device = model, legs, seed, device
        self.callbacks, self.log_every = callbacks, log_every
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.checkpoint_every, self.accelerator = checkpoint_every, accelerator
        self.run = Run(model, planned=sum(leg.stop - leg.start for leg in legs))
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.saved_states: dict[str, dict[int, dict[str, Any]]] = {}
        self.streams: dict[str, dict[str, Stream]] = {}
        self.tables: dict[tuple[str, str], dict[Target, Goal]] = {}
        self.mark = fingerprint(legs, seed)

    def run_all(self) -> FitResult:
        started = time.perf_counter()
        done = self._resume()
        for leg in self.legs:  # Everything that can be refused is refused before the first step.
            leg.phase.trains(self.model)
            self._streams_of(leg)
        self._tell("on_start")
        passed = 0
        try:
            for leg in self.legs:
                length = leg.stop - leg.start
                if passed + length > done and self.run.stopping is None:
                    self._run_leg(leg, leg.start + max(0, done - passed))
                passed += length
        finally:
            self._tell("on_end")
        if self.run.chosen is not None:
            self.model.load_state_dict(self.run.chosen)
        return FitResult(self.model, self.run.history, time.perf_counter() - started, self.run.stopping)

    def _tell(self, joint: str) -> None:
        for callback in self.callbacks:
            getattr(callback, joint)(self.run)

    def _resume(self) -> int:
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        saved = load_run(self.checkpoint, self.mark, self.run, self.callbacks)
        self.saved_states, self.run.done = saved.optimizers, saved.done
        return saved.done

    def _streams_of(self, leg: Leg) -> dict[str, Stream]:
        if leg.key not in self.streams:
            seed = derive(self.seed, leg.key)
            self.streams[leg.key] = {
                name: Stream(name, leg.phase.streams[name], leg.phase.batch_of(name), seed, workers=leg.phase.workers)
                for name in leg.phase.terms.streams
            }
        return self.streams[leg.key]

    def _optimizer(self, leg: Leg, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        known = self.optimizers.get(leg.optimizer_key)
        if known is None:
            known = leg.phase.make_optimizer(parameters)
            state = self.saved_states.pop(leg.optimizer_key, None)
            if state is not None:
                known.load_state_dict({"state": state, "param_groups": known.state_dict()["param_groups"]})
            if self.accelerator is not None:
                known = self.accelerator.prepare_optimizer(known, device_placement=True)
            self.optimizers[leg.optimizer_key] = known
        held = [p for group in known.param_groups for p in group["params"]]
        if {id(p) for p in held} != {id(p) for p in parameters}:
            raise ValueError(
                f"expected phases with a shared optimiser to train the same parameters, but {leg.phase.name!r} "
                "trains others"
            )
        return known

    def _run_leg(self, leg: Leg, first: int) -> None:
        phase, run = leg.phase, self.run
        trained = phase.trains(self.model)
        optimizer = self._optimizer(leg, list(trained.values()))
        streams = self._streams_of(leg)
        per_epoch = phase.steps_per_epoch
        part = (0, 1)
        if self.accelerator is not None:
            part = (self.accelerator.process_index, self.accelerator.num_processes)
        readers = {name: stream.read(first, leg.stop, part) for name, stream in streams.items()}
        run.phase, run.total = phase.name, leg.total
        with _only(self.model, trained), _modes(self.model, phase.batch_norm):
            guard = _Guard(self.model, phase, trained)
            for step in range(first, leg.stop):
                # Before the data are read: augmentations draw from the global random states.
                seed_everything(derive(self.seed, leg.key, "step", step))
                batches = {name: self._batch(leg, name, next(readers[name]), step) for name in streams}
                logged = step % self.log_every == 0 or step + 1 == leg.stop
                self._step(leg, step, batches, trained, optimizer, guard, logged)
                run.step, run.epoch, run.done = step + 1, (step + 1) // per_epoch, run.done + 1
                self._tell("on_step")
                if (step + 1) % per_epoch == 0 or step + 1 == leg.stop:
                    self._tell("on_epoch")
                if self.checkpoint is not None and (run.done % self.checkpoint_every == 0 or run.done == run.planned):
                    save_run(self.checkpoint, self.mark, run, self.optimizers, self.callbacks)
                if run.stopping is not None:
                    break
            guard.check_parameters(run.step)
            if self.accelerator is not None and phase.batch_norm == "update" and part[1] > 1:
                for buffer in self.model.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def _step(
        self,
        leg: Leg,
        step: int,
        batches: dict[str, Batch],
        trained: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        guard: _Guard,
        logged: bool,
    ) -> None:
        phase, accelerator = leg.phase, self.accelerator
        evaluation = phase.terms.evaluate(self.model, batches, step=step, total=leg.total, forward=self._forward)
        guard.check_loss(step, evaluation.total, evaluation.parts)
        if logged:
            record: dict[str, Any] = {
                "phase": phase.name,
                "step": step,
                "epoch": step // phase.steps_per_epoch,
            }
            record["total"] = evaluation.total.item()
            record |= {name: value.item() for name, value in evaluation.parts.items()}
            self.run.history.append(record)
        if not evaluation.total.requires_grad:  # Every term rests in this step.
            return
        optimizer.zero_grad(set_to_none=True)
        if accelerator is None:
            evaluation.total.backward()
        else:
            accelerator.backward(evaluation.total)
            if accelerator.num_processes > 1:
                for parameter in trained.values():
                    if parameter.grad is not None:
                        parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
        guard.mask_gradients()
        if phase.clip is not None:
            if accelerator is not None:
                accelerator.unscale_gradients(optimizer)
            nn.utils.clip_grad_norm_(trained.values(), phase.clip)
        if phase.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = value_at(phase.lr, step, leg.total)
        optimizer.step()
        guard.hold_masked()

    def _forward(self, inputs: Tensor) -> Tensor:
        if self.accelerator is None:
            outputs: Tensor = self.model(inputs)
            return outputs
        with self.accelerator.autocast():
            outputs = self.model(inputs)
        return outputs.float()

    def _batch(self, leg: Leg, name: str, read: tuple[Tensor, Tensor, Tensor], step: int) -> Batch:
        indices, x, y = read
        source = generator(self.seed, leg.key, name, step)
        return Batch(x.to(self.device), y.to(self.device), indices, name, source, self._tables(leg, name, step))

    def _tables(self, leg: Leg, name: str, step: int) -> dict[Target, Goal]:
        """Goals of the cached targets on a stream, for the current epoch of that stream or for the whole run."""
        cached = leg.phase.terms.cached_targets(name)
        if not cached:
            return {}
        stream = self._streams_of(leg)[name]
        tables = self.tables.setdefault((leg.key, name), {})
        for target in cached:
            due = step % stream.batches_per_epoch == 0 if target.refresh == "epoch" else False
            if target not in tables or due:
                epoch = step // stream.batches_per_epoch if target.refresh == "epoch" else 0
                source = generator(self.seed, leg.key, name, "table", epoch)
                tables[target] = self._table(stream, target.target, source, epoch, leg.total)
        return tables


    def _table(self, stream: Stream, target: Target, source: torch.Generator, epoch: int, total: int) -> Goal:
        """The target's goals for the samples that the stream yields in one of its passes (others stay zero)."""
        first = epoch * stream.batches_per_epoch
        passed = [stream.indices(n) for n in range(first, min(first + stream.batches_per_epoch, total))]
        rows = torch.cat(passed).sort().values
        parts = []
        for x, y in iterate(stream.dataset, rows.split(512), workers=stream.workers):
            parts.append(target(Batch(x.to(self.device), y.to(self.device), None, stream.name, source)))
        values = torch.cat([part.values for part in parts])
        table = values.new_zeros(len(stream.dataset), *values.shape[1:])
        table[rows.to(table.device)] = values
        return Goal(parts[0].kind, table)


class _Guard:
    """Keeps the last weights at which the loss was finite, and masked entries where they are."""

    def __init__(self, model: nn.Module, phase: Phase, trained: dict[str, nn.Parameter]) -> None:
        self.model, self.phase, self.trained = model, phase, trained
        moving = [p.data for p in trained.values()]
        if phase.batch_norm == "update":
            moving += list(model.buffers())
        self.moving = moving
        self.kept = [tensor.clone() for tensor in moving]
        self.masked: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        for name, mask in (phase.masks or {}).items():
            if name in trained:
                parameter = trained[name]
                if mask.shape != parameter.shape or mask.dtype != torch.bool:
                    raise ValueError(
                        f"expected masks[{name!r}] to be bool of shape {tuple(parameter.shape)}, "
                        f"but got {mask.dtype} of shape {tuple(mask.shape)}"
                    )
                self.masked.append((parameter, mask.to(parameter.device), parameter.detach().clone()))

    def check_loss(self, step: int, total: Tensor, parts: dict[str, Tensor]) -> None:
        if torch.isfinite(total):
            torch._foreach_copy_(self.kept, self.moving)
            return
        part = next((name for name, value in parts.items() if not torch.isfinite(value)), "total")
        self._fail(step, part)

    def check_parameters(self, step: int) -> None:
        if not all(torch.isfinite(tensor).all() for tensor in self.moving if tensor.is_floating_point()):
            self._fail(step, "parameters")

    def _fail(self, step: int, part: str) -> None:
        torch._foreach_copy_(self.moving, self.kept)
        raise DivergenceError(self.phase.name, step, part, cpu_state(self.model))

    def mask_gradients(self) -> None:
        for parameter, mask, _ in self.masked:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def hold_masked(self) -> None:
        # Momentum and weight decay move entries whose gradient is zero: put those back.
        for parameter, mask, start in self.masked:
            parameter.copy_(torch.where(mask, parameter, start))


@contextmanager
def _only(model: nn.Module, trained: dict[str, nn.Parameter]) -> Iterator[None]:
    """Let only ``trained`` take gradients, and give every parameter its own setting back."""
    before = {p: p.requires_grad for p in model.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in before.items():
            parameter.requires_grad_(flag)
            parameter.grad = None


@contextmanager
def _modes(model: nn.Module, batch_norm: str) -> Iterator[None]:
    """Training mode, batch norm as asked for; every module gets its own mode back."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        if batch_norm == "frozen":
            for layer in batch_norms(model):
                layer.eval()
        yield
    finally:
        for module, training in before:
            module.training = training
