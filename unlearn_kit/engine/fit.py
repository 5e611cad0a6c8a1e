"""The one training loop, for every method that trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..display import counted
from ..errors import CheckpointError, check_count, check_path_exists
from ..losses import Batch
from ..losses.batch import Share
from ..modules import blank_copy, check_device, check_model, device_of, drop_graphs, evaluating
from ..progress import Bar
from ..schedules import rate_at
from ..seeding import derive, generator, isolated, refuse_inference_mode, seed_draws
from .balance import balanced_backward
from .callbacks import Callback, Run, check_callbacks
from .devices import Devices
from .door import raise_precision, restore_precision, trial
from .fingerprint import fingerprint
from .guard import Guard, training
from .phases import Alternate, Leg, Phase, plan
from .resumable import Saving, saving
from .resume import OptimizerState, load_run, save_run
from .streams import Stream
from .tables import Tables

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, repr=False)
class FitResult:
    """What a run made.

    Attributes:
        model: The trained copy.
        history: The records that were logged, in order.
        seconds: Wall time, in seconds.
        stopped: Why the run ended early; None when it did not.
        details: What else a method has to tell.
    """

    model: nn.Module
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return what was trained, what it took, and why it ended early where it did."""
        ended = "" if self.stopped is None else f"; stopped: {self.stopped}"
        records = counted(len(self.history), "record")
        return f"<FitResult {type(self.model).__name__}: {self.seconds:.1f} s; {records}{ended}>"


@checked
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
        model: A module that returns logits ``(B, C, ...)``.
        program: Phases, or alternations of phases, in order.
        seed: The seed of data order, dropout and random targets.
        device: Where to train (default: where the model is).
        callbacks: Called at the joints of the run, in order; at most one that chooses the final weights.
        log_every: Steps between records of the history; the first and last step of a phase are always logged. On
            another device than the CPU it is in these steps alone that losses, weights and goals are looked at, since
            the host waits for each look: a run that diverges ends a few steps later, naming the step where it did.
        checkpoint: A file that the run is saved to and, when it exists, continued from; None leaves that to an
            :func:`~unlearn_kit.engine.resumable` block around the call, where there is one. A run of another model,
            program, seed or other data is refused: data are told apart by their length, their labels and 16 samples;
            functions by their code, defaults and closures, so that the version of Python must be the same.
        checkpoint_every: Steps between saves.
        accelerator: An ``accelerate.Accelerator``, for mixed precision or several devices; every process is then given
            its share of each batch, and must call this with the same model. None: one device in the model's own
            precision, without that library.

    Returns:
        The trained copy and the log of its training.

    Raises:
        DivergenceError: When a loss or a weight is no longer finite. All others are raised before anything is trained.
        CheckpointError: When the checkpoint is of another run.
        FileNotFoundError: When the checkpoint's folder is missing.
        ValueError: In inference mode, when the program does not fit the model or the data, or two callbacks choose the
            final weights.
        TypeError: When the model is no module or, with a checkpoint, the program holds a function that cannot be told
            apart from others.
    """
    refuse_inference_mode("fit")
    model = check_model(model)
    check_count("log_every", log_every)
    check_count("checkpoint_every", checkpoint_every)
    check_callbacks(callbacks)
    if checkpoint is not None:
        if not isinstance(checkpoint, (str, Path)):
            raise TypeError(f"expected checkpoint to be a path, but got {type(checkpoint).__name__}")
        check_path_exists("the folder of checkpoint", Path(checkpoint).parent)
        if Path(checkpoint).is_dir():
            raise ValueError(f"expected checkpoint to name a file, but got the folder {str(checkpoint)!r}")
    devices = Devices(device_of(model) if device is None else check_device(device), accelerator)
    with isolated(derive(seed, "fit")):
        trained, legs = blank_copy(model).to(devices.device), plan(program)
        precisions = raise_precision(trained)
        trainer = _Trainer(trained, legs, seed, devices, callbacks, log_every)
        if checkpoint is not None:
            trainer.resume(Path(checkpoint), checkpoint_every)
        elif (around := saving()) is not None:
            trainer.resume_in(around)
        with trial(trained, legs):
            fitted = trainer.run_all()
        drop_graphs(trained)
        restore_precision(trained, precisions)
        return fitted


class _Trainer:
    def __init__(
        self,
        model: nn.Module,
        legs: list[Leg],
        seed: int,
        devices: Devices,
        callbacks: Sequence[Callback],
        log_every: int,
    ) -> None:
        self.started = time.perf_counter()
        self.model, self.legs, self.seed, self.devices = model, legs, seed, devices
        self.callbacks, self.log_every = callbacks, log_every
        self.run = Run(model, planned=sum(leg.stop - leg.start for leg in legs))
        self.bar = Bar("", self.run.planned)  # no callback: those are saved with a run, whoever watched it
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.streams: dict[str, dict[str, Stream]] = {}
        self.tables = Tables(seed, devices)
        self.checkpoint: Path | None = None
        self.saving: Saving | None = None
        self.saved: dict[str, OptimizerState] = {}
        self.keepers: list[str] | None = None
        # Everything that can be refused is refused before the first step.
        choosing = [type(callback).__name__ for callback in callbacks if callback.chooses]
        if len(choosing) > 1:
            raise ValueError(f"expected callbacks with one at most that chooses the weights, but got {choosing}")
        stepped: dict[str, set[str]] = {}
        for leg in legs:
            if leg.phase.balance is not None and devices.scales:
                raise ValueError(
                    f"expected an accelerator that scales no gradients with balance={leg.phase.balance!r}, which "
                    "combines them as they are, but got mixed_precision='fp16'; 'bf16' needs no scale"
                )
            trained = set(leg.phase.trains(model))
            if stepped.setdefault(leg.optimizer_key, trained) != trained:
                raise ValueError(
                    f"expected phases with a shared optimiser to train the same parameters, but {leg.phase.name!r} "
                    "trains others"
                )
            if leg.key not in self.streams:
                own, phase = derive(seed, leg.key), leg.phase
                self.streams[leg.key] = {
                    name: Stream(
                        name,
                        phase.streams[name],
                        phase.batch_of(name),
                        own,
                        workers=phase.workers,
                        weights=phase.sampling.get(name),
                        augment=phase.augment,
                        pinned=devices.pins,
                        scaled=not devices.waits,
                    )
                    for name in phase.terms.streams
                }

    def resume(self, checkpoint: Path, every: int) -> None:
        """Save to the checkpoint from now on, and continue from it when it exists."""
        self.checkpoint, self.checkpoint_every = checkpoint, every
        self.mark = fingerprint(self.legs, self.model, self.seed)
        if checkpoint.exists():
            self.saved = load_run(checkpoint, self.mark, self.run, self.callbacks)

    def resume_in(self, saving: Saving) -> None:
        """Save in the folder from now on, and continue from what lies there, where all of that can be done."""
        try:
            self.mark = fingerprint(self.legs, self.model, self.seed)
        except TypeError:
            return
        self.saving, self.checkpoint = saving, saving.file(self.mark, self.callbacks)
        if self.checkpoint.exists():
            with suppress(CheckpointError):  # damaged: it is written anew
                self.saved = load_run(self.checkpoint, self.mark, self.run, self.callbacks)

    def run_all(self) -> FitResult:
        done, passed = self.run.done, 0
        self.bar.done = done
        with self.bar if not any(callback.shows for callback in self.callbacks) else nullcontext():
            try:
                self._tell("on_start")
                for leg in self.legs:
                    length = leg.stop - leg.start
                    if passed + length > done and self.run.stopping is None:
                        self._run_leg(leg, leg.start + max(0, done - passed))
                    passed += length
            finally:
                self._tell("on_end")
        if self.run.chosen is not None:
            self.model.load_state_dict(self.run.chosen)
        return FitResult(self.model, self.run.history, time.perf_counter() - self.started, self.run.stopping)

    def _tell(self, joint: str) -> None:
        for callback in self.callbacks:
            chosen = self.run.chosen
            getattr(callback, joint)(self.run)
            if self.run.chosen is not chosen and not callback.chooses:
                kind = type(callback).__name__
                raise TypeError(f"expected chooses = True on {kind}, which sets run.chosen, but it is False")

    def _save(self, guard: Guard, step: int) -> None:
        guard.look(step)  # Or the run would be continued from weights that are not finite.
        if self.checkpoint is None or self.devices.part[0] > 0:
            return
        try:
            # Of a phase that has not had its turn since the run was continued, what was saved is still the state.
            states = self.saved | {key: OptimizerState.of(made) for key, made in self.optimizers.items()}
        except CheckpointError:
            if self.saving is None:
                raise
            self.checkpoint = None  # nobody asked for this very run to be saved
        else:
            save_run(self.checkpoint, self.mark, self.run, states, self.callbacks)

    def _due(self) -> bool:
        if self.checkpoint is None:
            return False
        return self.run.done % self.checkpoint_every == 0 if self.saving is None else self.saving.due()

    def _optimizer(self, leg: Leg, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        known = self.optimizers.get(leg.optimizer_key)
        if known is None:
            known = leg.phase.make_optimizer(parameters)
            if leg.optimizer_key in self.saved:
                self.saved.pop(leg.optimizer_key).restore(known)
            known = self.optimizers[leg.optimizer_key] = self.devices.prepare(known)
        return known

    def _run_leg(self, leg: Leg, first: int) -> None:
        phase, run, devices = leg.phase, self.run, self.devices
        trained = phase.trains(self.model)
        optimizer = self._optimizer(leg, list(trained.values()))
        readers = {name: s.read(first, leg.stop, devices.part) for name, s in self.streams[leg.key].items()}
        updates, per_epoch = phase.batch_norm != "frozen", phase.steps_per_epoch
        run.phase, run.total = phase.name, leg.total
        if phase.before is not None and first == leg.start:
            self._seed(leg, -1 - first)
            with torch.no_grad(), evaluating(self.model):
                phase.before(self.model)
        guard = Guard(self.model, phase.name, trained, phase.masks or {}, buffers=updates)
        with training(self.model, trained, phase.batch_norm) as rest:
            for step in range(first, leg.stop):
                batches = {name: self._batch(leg, name, next(reader), step) for name, reader in readers.items()}
                if rest is not None and step == first and batches:
                    self.keepers = rest.watch(next(iter(batches.values())).inputs, self.keepers)
                # After the data are read, which may draw random numbers: dropout does not depend on how many.
                self._seed(leg, step)
                ends = step + 1 == leg.stop
                self._step(leg, step, batches, trained, optimizer, guard, ends or step % self.log_every == 0)
                if rest is not None:
                    rest.hold()
                if updates and devices.shared:
                    devices.average(self.model.buffers())
                run.step, run.epoch, run.done = step + 1, (step + 1) // per_epoch, run.done + 1
                self.bar.update(run.done, run.phase)
                self._tell("on_step")
                if ends or (step + 1) % per_epoch == 0:
                    self._tell("on_epoch")
                stops = run.stopping is not None
                if ends or stops or self._due():
                    self._save(guard, step)
                if stops:
                    break

    def _seed(self, leg: Leg, step: int) -> None:
        seed = derive(self.seed, leg.key, "step", step, *self._process)
        seed_draws(seed)
        if self.devices.device.type != "cpu":
            torch.manual_seed(seed)

    @property
    def _process(self) -> tuple[int, ...]:
        """Return what tells the random numbers of several processes apart."""
        return (self.devices.part[0],) if self.devices.part[0] > 0 else ()

    def _step(
        self,
        leg: Leg,
        step: int,
        batches: dict[str, Batch],
        trained: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        guard: Guard,
        logged: bool,
    ) -> None:
        phase, devices = leg.phase, self.devices
        look = logged or not devices.waits  # elsewhere the host would wait at every step

        def forward(inputs: Tensor) -> Tensor:
            return devices.forward(self.model, inputs)

        evaluation = phase.terms.evaluate(
            self.model, batches, step=step, total=leg.total, forward=forward, joint=phase.joint, look=look
        )
        values = {"total": evaluation.total.detach(), **evaluation.parts}
        if devices.shared:
            # Every process sees the same numbers, so that all of them stop or none.
            values = {name: value.detach().clone() for name, value in values.items()}
            devices.average(values.values())
        total = values.pop("total")
        guard.check_loss(step, total, values, look=look)
        if logged:
            record = {"phase": phase.name, "step": step, "epoch": step // phase.steps_per_epoch, "total": total.item()}
            self.run.history.append(record | {name: value.item() for name, value in values.items()})
        if not evaluation.total.requires_grad:  # Every term rests in this step.
            return
        optimizer.zero_grad(set_to_none=True)
        if phase.balance is None:
            devices.backward(evaluation.total, trained.values())
        else:
            balanced_backward(
                phase.balance,
                phase.terms,
                evaluation,
                list(trained.values()),
                step=step,
                total=leg.total,
                devices=devices,
            )
        guard.mask_gradients()
        if phase.clip is not None:
            devices.clip(optimizer, trained.values(), phase.clip)
        if phase.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(phase.lr, step, leg.total)
        optimizer.step()
        guard.hold_masked()

    def _batch(self, leg: Leg, name: str, read: tuple[Tensor, Tensor, Tensor], step: int) -> Batch:
        indices, x, y = read
        stream, (place, processes) = self.streams[leg.key][name], self.devices.part
        x, y = self.devices.place(x, y, as_bytes=stream.as_bytes)
        source, share = generator(self.seed, leg.key, name, step), None
        if processes > 1 and stream.divides(step, processes):
            share = Share(place, processes, stream.size(step), source)
            source = generator(self.seed, leg.key, name, step, *self._process)
        return Batch(x, y, indices, name, source, self.tables.of(leg, stream, step), share)
