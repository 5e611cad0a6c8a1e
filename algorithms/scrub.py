"""SCRUB: away from the teacher on the forget data, toward it on the retain data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import CountOrZero, NonNegative, Positive
from unlearn_kit.engine import Alternate, FitResult, Phase, Training, TrainingOptions, revision
from unlearn_kit.errors import check_count
from unlearn_kit.schedules import cosine

from .doubling import doubled, farther
from .masks import part_to_forget, to_forget
from .rewind import Rewind, held_out


@revision(
    Training(epochs=50, batch_size={"forget": 64, "retain": 256}, lr=cosine(5e-2, 0.0), clip=0.1),
    without=("steps",),
    source="Kurmanji et al. 2023, arXiv 2302.09880",
)
def scrub(
    model: nn.Module,
    task: UnlearnTask,
    *,
    gamma: NonNegative = 1.0,
    alpha: NonNegative = 0.5,
    temperature: Positive = 4.0,
    msteps: CountOrZero = 30,
    forget_steps: CountOrZero | None = 1,
    retain_steps: CountOrZero | None = 1,
    nudge: NonNegative = 0.3,
    doublings: CountOrZero = 3,
    rewind: bool = False,
    validation: Any = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Ascend ``T^2 KL(p0 || p)`` on forget, then descend ``gamma CE + alpha T^2 KL(p0 || p)`` on retain, each epoch.

    Only the first ``msteps`` epochs ascend. One optimiser makes all steps.

    Published defaults: gamma 1 (large data .99), alpha .5 (.001), temperature 4, 5 to 10 epochs (3) of whole passes,
    of which 3 (2) ascend, lr 5e-4, no clipping. Here an epoch is one step of each, since an ascent of a whole pass
    breaks what it then takes many passes to mend; the steps are larger, fall to 0 and are clipped, since the ascent
    has no upper bound. And the ascent climbs ``nudge CE(forget)`` as well, which is not published: where the student
    starts, in the teacher's place, the divergence is 0 and so is its gradient. The first ascents would climb rounding
    errors, and as often toward more certainty of the true label as toward less (with batch norm in training mode, as
    published, the two differ from the start). How far to climb follows the data: with clipped gradients it is a length
    in weights, and a network that knows few images by heart lies further from forgetting them.

    Args:
        model: the original, and the teacher; logits ``(B, C, ...)``.
        task: what to forget and what to keep.
        gamma, alpha: weights of the two retain terms, at least 0.
        temperature: of the distillations, above 0.
        msteps: how many of the epochs ascend.
        forget_steps, retain_steps: steps an epoch of ascent and of descent; None for a pass over the data.
        nudge: weight, at least 0, of ``CE(forget)`` in the ascent: which way to leave the teacher.
        doublings: how often ``clip`` may double, and lr grow by sqrt 2, while a class that is to be forgotten is still
            recognised (``doubling.doubled``); none with ``rewind``, which chooses how far to go itself.
        rewind: return the epoch whose error on the forget data is nearest the last epoch's error on ``validation``
            (SCRUB+R): against membership attacks, where an error above that of unseen data tells.
        validation: held-out data distributed like the forget data, for ``rewind``. By default
            ``task.forget_validation`` or, where that is empty, the samples of ``task.retain_validation`` of the classes
            that are forgotten; a task that has none is refused.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    The result's details: ``strength``, 1 or what ``clip`` was multiplied by; with ``rewind`` the ``epoch`` and the
    ``forget_errors`` of all.

    Raises:
        ValueError: When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Kurmanji et al. 2023, arXiv 2302.09880.
    """
    training = Training(**options)
    epochs = check_count("epochs", training.epochs, low=0)
    teacher = L.Teacher(model)  # The engine trains a copy of the model: this one stays as it is.
    ascent = L.Objective((-L.kl(on="forget", to=to_forget(task, teacher), temperature=temperature),))
    if nudge:
        ascent -= nudge * L.cross_entropy(on="forget", to=to_forget(task))
    descent = gamma * L.cross_entropy(on="retain") + alpha * L.kl(on="retain", to=teacher, temperature=temperature)

    def run(strength: float) -> FitResult:
        stronger = farther(training, strength)

        def phase(objective: L.Objective | L.Term, name: str, steps: int | None) -> Phase:
            return stronger.phase(objective, task, name=name, epochs=1 if steps is None else None, steps=steps)

        phases = [phase(ascent, "ascend", forget_steps), phase(descent, "descend", retain_steps)]
        program = Alternate(phases, epochs, shared_optimizer=True, turns={"ascend": msteps})
        if not rewind:
            return stronger.fit(model, program, seed=seed, device=device)
        unseen = held_out(task) if validation is None else validation
        rewinding = Rewind(task.forget, unseen, "descend", phases[1].total_steps, part=part_to_forget(task))
        fitted = stronger.fit(model, program, seed=seed, device=device, watching=[rewinding])
        return replace(fitted, details={"epoch": rewinding.chosen, "forget_errors": rewinding.errors})

    return doubled(run, task, 0 if rewind else doublings)
