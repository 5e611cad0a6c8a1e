"""Erase to Retain: reversible unlearning with low-rank adapters (the second seed method)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Unpack

import torch
from torch import nn
from torch.utils.data import default_collate

from unlearn_kit import UnlearnTask, adapters
from unlearn_kit import losses as L
from unlearn_kit.adapters.structure import plain_name
from unlearn_kit.arguments import Between, Count, CountOrZero, NonNegative, Positive, PositiveShare, Share
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import Alternate, FitResult, Phase, Training, TrainingOptions, revision
from unlearn_kit.heads import head_name
from unlearn_kit.modules import device_of
from unlearn_kit.schedules import NonNegativeSchedule
from unlearn_kit.seeding import derive

from .masks import to_forget
from .stopping import check_stop, falls_along, held_out_alike, stop_level, stop_when

Preset = Literal["paper", "released", "fast"]

# What an option is when it is not given: for masks, then what differs for classes and for findings.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "segmentation": {
            "where": "decoder",
            "rounds": 20,
            "restore_epochs": 2,
            "pace": 0.5,
            "erase_weight": 1.0,
            "stop_at": "held-out",
        },
        "classification": {"where": "all", "rounds": 1, "restore_epochs": 1, "pace": 1.0},
        # A contradiction of every finding of an image is as much as one of every pixel: it needs the stop, and rounds.
        "multilabel": {"where": "all", "restore_epochs": 1},
    },
    "released": {
        "segmentation": {
            "where": "all",
            "rounds": 15,
            "restore_epochs": 0,
            "pace": 1.0,
            "erase_weight": 3.0,
            "stop_at": "never",
        },
        "classification": {"rounds": 30},
        "multilabel": {"rounds": 30},
    },
    # For a class in a hurry.
    "fast": {
        "segmentation": {},
        "classification": {
            "where": "last:2",
            "rounds": 4,
            "restore_epochs": 0,
            "pace": 1.0,
            "erase_weight": 1.0,
            "stop_at": "never",
            "dropout": 0.0,
            "logit_weight": 0.0,
            "retain_samples": 2_000,
        },
    },
}
# What no preset but the last has of its own.
COMMON = {"dropout": 0.05, "logit_weight": 0.05, "retain_samples": None}
TRAINING = {
    "paper": Training(batch_size=16, lr=2e-3, optimizer="adamw", weight_decay=1e-2, clip=1.0),
    "paper:classification": Training(batch_size=128, lr=2e-3, optimizer="adamw", weight_decay=1e-2, clip=1.0),
    "released": Training(batch_size=16, lr=1e-4, optimizer="adamw", weight_decay=1e-2, clip=1.0),
    "fast": Training(batch_size=128, lr=5e-3, optimizer="adamw", weight_decay=1e-2, clip=1.0),
}


def _fitting(options: Mapping[str, Any]) -> None:
    preset, pace = options["preset"], options["pace"]
    if preset == "released" and pace not in (None, 1):
        raise ValueError(f"expected no pace with preset='released', whose passes take turns, but got {pace!r}")


# Its length is a number of rounds; and batch norm at rest is what makes it reversible.
@revision(
    TRAINING,
    without=("epochs", "steps", "batch_norm", "trainable", "balance"),
    source="arXiv 2511.16574",
    fitting=_fitting,
)
def erase_to_retain(
    model: nn.Module,
    task: UnlearnTask,
    *,
    preset: Preset = "paper",
    rounds: CountOrZero | None = None,
    restore_epochs: CountOrZero | None = None,
    where: adapters.Where | None = None,
    rank: Count = 8,
    alpha: Positive = 32,
    dropout: Annotated[float, Between(0, 1, open_high=True)] | None = None,
    erase_to: L.Target | None = None,
    confidence: Share = 0.9,
    erase_weight: NonNegativeSchedule | None = None,
    distill_weight: NonNegative = 1.0,
    logit_weight: NonNegative | None = None,
    temperature: Positive = 2.0,
    pace: PositiveShare | None = None,
    stop_at: Share | Literal["held-out", "never"] | None = None,
    stop_every: Count | None = None,
    restore_lr: NonNegative = 1e-3,
    retain_samples: Count | None = None,
    name: str = "erase",
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Train low-rank adapters against what the teacher knows of the forget data, and with it on the retain data.

    The retain side of both presets is ``keep = supervised(retain) + distill_weight T^2 KL(teacher || student) +
    logit_weight MSE(logits)``; supervised is Dice + BCE for masks, cross-entropy for classes.

    Preset "paper", the published description: adapters on the decoder; every step minimises ``keep + erase_weight *
    erase``, where erase leads the forget data to the contradiction of the teacher's confident predictions; then a
    gentle restoration trains a copy of the head alone on the retain labels. That copy belongs to the adapter.
    Preset "released", the published code: adapters on every convolution; each round a pass over the retain data
    minimising ``keep``, then a pass over the forget data toward background (masks) or uniform predictions (classes);
    AdamW at 1e-4, 15 rounds.
    Preset "fast", for classes in a hurry: adapters on the last two stages and the head alone, a few passes over a part
    of the retain data, without dropout and restoration; erase leads the forget data to what the teacher says of the
    other classes, and what it says of the retain data is distilled without the classes that are forgotten
    (``losses.Without``). Features before these stages stay the original's.
    None lets batch norm move, so switching the adapter off gives the original back.

    The result's model is adapted: ``adapters.switched_off`` undoes the revision, ``adapters.merge`` makes it final,
    ``adapters.save`` keeps it apart. ``details`` holds "objectives" (formulas by phase), "trainable" (parameters that
    were trained, and all of the original's), "skipped" (why layers that ``where`` covers got no adapter, by name),
    "stop_level" (of the result), and "stopped" (why the erase phase ended early, or None).

    Args:
        model: The original and teacher; logits ``(B, 1, H, W)``, ``(B, K, H, W)`` or ``(B, C)``.
        task: What to forget and what to keep.
        preset: "paper", "released" or "fast"; gives every option that is None.
        rounds: Passes over the retain data.
        restore_epochs: Passes of head-only training afterwards; 0 for none.
        where: Which layers get adapters, by name (see ``adapters.attach``). Those of them whose adapter could not act,
            as the first forget sample shows, or could not be merged get none.
        rank: The rank of each adapter's update.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: Dropout on the adapters' input, in [0, 1) (default: .05; "fast": 0).
        erase_to: What the forget data are led toward: any target, such as ``losses.Background()``,
            ``losses.Uniform(C)``, ``losses.RandomLabels(C)``, or the other method's ``losses.Boundary(model, search)``.
            For single samples what unseen ones would get: ``difficulty.matched(model, task)``, or of masks
            ``losses.Transformed(model)``.
        confidence: The teacher's predictions below it are not contradicted, in [0, 1].
        erase_weight: The tradeoff knob.
        distill_weight: The weight of the distance to the teacher's predictions on the retain data.
        logit_weight: The weight of the distance to the teacher's logits there (default: .05; "fast": 0).
        temperature: The temperature of the former.
        pace: Forget batches for each retain batch, in (0, 1]: too many erase beyond what a model that never saw the
            data would have forgotten. Of "paper" alone: the passes of "released" take turns.
        stop_at: The forget score (mean IoU, or accuracy) at which the erase phase ends; "held-out" is the model's own
            score on comparable validation data ("paper" stops there where there are any); or "never".
            Where whole devices or planes are forgotten it is the original's score on their validation data, since the
            model's own falls along: there the images are forgotten, and what they share is not.
        stop_every: Steps between looks at the forget score (default: four looks a round).
        restore_lr: The learning rate of the restoration.
        retain_samples: How many retain samples are used, drawn once ("fast": 2,000); None for
            all. They are fewer where there are fewer.
        name: The adapter's. On a model with adapters it is trained beside those, which stay as they are and act on.
        **options: How it trains, as in ``engine.Training``; callbacks are called during the erase phase.
        seed: The seed of the run.
        device: Where to train (default: where the model is).

    Raises:
        ValueError: When an argument is out of range, by its name; when ``where`` names a layer that can have no
            adapter; on ``stop_at="held-out"`` where a whole class is to be forgotten, or the task has no
            validation data.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: arXiv 2511.16574, and the code released with it.
    """
    if erase_to is not None and not isinstance(erase_to, L.Target):
        raise TypeError(f"expected erase_to to be a target of losses, but got {type(erase_to).__name__}")
    training = Training(**options)
    given = {
        "where": where,
        "rounds": rounds,
        "restore_epochs": restore_epochs,
        "pace": pace,
        "erase_weight": erase_weight,
        "stop_at": stop_at,
        "dropout": dropout,
        "logit_weight": logit_weight,
        "retain_samples": retain_samples,
    }
    if preset == "fast" and task.kind != "classification":
        raise ValueError(f"expected a classification task with preset='fast', but got {task.kind}")
    chosen = COMMON | PRESETS[preset]["segmentation"] | PRESETS[preset][task.kind]
    if stop_at is None and held_out_alike(task) is None:
        chosen["stop_at"] = "never"
    chosen |= {name: value for name, value in given.items() if value is not None}
    stops = chosen["stop_at"] != "never"
    if stops:
        check_stop(task, chosen["stop_at"])

    head = head_name(model) if chosen["restore_epochs"] else None
    full = () if head is None else (plain_name(head),)
    example = default_collate([task.forget[0]])[0].to(device_of(model))
    places = chosen["where"] if isinstance(chosen["where"], (str, nn.Module)) else list(chosen["where"])
    adapted = adapters.attach(
        model, places, rank, alpha, chosen["dropout"], name, full=full, example=example, seed=None
    )
    own = tuple(f".{part}.{name}." for part in ("lora_A", "lora_B"))
    low_rank = [key for key, p in adapted.named_parameters() if p.requires_grad and any(part in key for part in own)]
    task = replace(task, retain=random_subset(task.retain, chosen["retain_samples"], seed=seed))
    supervised = _supervised(task)
    keep = L.Objective((supervised,))
    if distill_weight:
        teacher: L.Target = L.Teacher(model)
        if preset == "fast":  # read several times; whole, it would teach the class back
            teacher = L.Cached(L.Without(teacher, task.forget_classes))
        keep = keep + distill_weight * L.kl(on="retain", to=teacher, temperature=temperature)
    if chosen["logit_weight"]:
        keep = keep + chosen["logit_weight"] * L.mse(on="retain", to=L.Teacher(model))
    target = erase_to if erase_to is not None else _default_target(model, task, preset, confidence)
    erase = chosen["erase_weight"] * _erase(task, target, preset)

    objectives: dict[str, str] = {}
    program: Phase | Alternate
    if preset != "released":
        joint = keep + (erase if chosen["pace"] == 1 else paced(chosen["pace"]) * erase)
        objectives["erase"] = str(joint)
        program = training.phase(joint, task, name="erase", epochs=chosen["rounds"], lead="retain", trainable=low_rank)
        a_round = program.steps_per_epoch
    else:
        objectives |= {"retain": str(keep), "erase": str(erase)}
        passes = [
            training.phase(part, task, name=name, epochs=1, trainable=low_rank)
            for name, part in (("retain", keep), ("erase", erase))
        ]
        program = Alternate(passes, rounds=chosen["rounds"], shared_optimizer=True)
        a_round = sum(phase.total_steps for phase in passes)
    stop = []
    if stops:
        every = math.ceil(a_round / 4) if stop_every is None else stop_every
        stop = [stop_when(model, task, chosen["stop_at"], every=every)]
    fitted = training.fit(adapted, program, seed=seed, device=device, watching=stop)
    final, history = fitted.model, fitted.history
    if head is not None:
        copied = [key for key, p in final.named_parameters() if p.requires_grad and f".modules_to_save.{name}." in key]
        objectives["restore"] = str(supervised)
        gentle = replace(training, lr=restore_lr, callbacks=())
        restore = gentle.phase(supervised, task, name="restore", epochs=chosen["restore_epochs"], trainable=copied)
        restored = gentle.fit(final, restore, seed=derive(seed, "restore"), device=device)
        final, history = restored.model, history + restored.history
    details = {
        "objectives": objectives,
        "trainable": adapters.count_trainable(final),
        "skipped": adapters.skipped(model, places, example=example),
        "stop_level": stop_level(model if falls_along(task) else final, task, chosen["stop_at"]) if stops else None,
        "stopped": fitted.stopped,
    }
    return FitResult(final, history, details=details)


def paced(pace: float) -> L.Schedule:
    """Return 1 at the steps s where ``floor((s + 1) pace) > floor(s pace)``, so at ``pace`` of all steps.

    0 at the others.
    """
    period = round(1 / pace)
    if math.isclose(period * pace, 1, rel_tol=1e-9):
        return L.every(period)

    def fires(step: int, _total: int) -> float:
        # Ten times .7 is 7, however .7 is rounded.
        before, after = (math.floor(count * pace + 1e-9) for count in (step, step + 1))
        return float(after > before)

    return L.Schedule(f"pace({pace:g})", fires)


def _supervised(task: UnlearnTask) -> L.Term:
    return L.dice_bce(on="retain") if task.kind == "segmentation" else L.cross_entropy(on="retain")


def _default_target(model: nn.Module, task: UnlearnTask, preset: str, confidence: float) -> L.Target:
    if preset == "paper":
        return L.Contradiction(model, confidence)
    if preset == "fast":
        return L.Cached(L.OtherClasses(model))
    return L.Background() if task.kind == "segmentation" else L.Uniform(task.outcomes)


def _erase(task: UnlearnTask, target: L.Target, preset: str) -> L.Term:
    asked = to_forget(task, target)
    if preset == "released" and isinstance(target, L.Uniform):
        return L.kl(on="forget", to=asked)
    return L.cross_entropy(on="forget", to=asked)
