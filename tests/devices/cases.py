"""Run the library on the simulated device: ``python cases.py`` prints a line of JSON, an error or null a case."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import simulated
import torch
from simulated import NAME, available, set_up
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "algorithms"))
import test_promises as promises

import algorithms
from unlearn_kit import DivergenceError, adapters, audits, composition, difficulty, engine, metrics, models
from unlearn_kit import losses as L
from unlearn_kit.boundary import DISTRIBUTIONS, PerturbedSign, smoothed_search
from unlearn_kit.engine import BestSoFar, Callback, Phase, Run, StopWhen, WeightAverage, fit, train
from unlearn_kit.gradients import mean_squared_gradients
from unlearn_kit.losses.distances import label_cross_entropy

TASKS = {"class": promises.of_class(), "masks": promises.of_masks(), "finding": promises.of_finding()}
SEARCH = PerturbedSign(radius=0.1, steps=3, closeness=1e-3, noise=0.1, noise_scale="relative")


def networks() -> dict[str, nn.Module]:
    """Return one network a kind of task, in memory."""
    torch.manual_seed(0)
    small = partial(models.small_cnn, num_classes=3, channels=1, width=4)
    segmenter = models.unet(num_classes=2, channels=1, widths=(4, 8), decoder_widths=(8, 4))
    return {"class": small().eval(), "finding": small().eval(), "masks": segmenter.eval()}


def algorithm(name: str, kind: str, model: nn.Module) -> None:
    """Revise on the device: all that comes back is there."""
    made = getattr(algorithms, name)(model, TASKS[kind], device=NAME, **promises.quick(name, model)).model
    places = {value.device.type for value in made.state_dict().values()}
    assert places == {NAME}, places


def batch(kind: str = "class") -> tuple[Tensor, Tensor]:
    x, y = TASKS[kind].forget[0]
    return x[None].to(NAME), torch.as_tensor(y)[None].to(NAME)


def training(model: nn.Module, objective: Any, task: Any, **options: Any) -> None:
    given = engine.streams_for(task, objective)
    fit(model, Phase(objective, given, steps=2, batch_size=4, **options), device=NAME)


def divergence(model: nn.Module) -> None:
    phase = Phase(L.cross_entropy(on="retain"), {"retain": TASKS["class"].retain}, steps=5, batch_size=4, lr=1e30)
    try:
        fit(model, phase, device=NAME)
    except DivergenceError:
        return
    raise AssertionError("expected a divergence")


class Reads(Callback):
    """How often the host waited for the device in each step."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_start(self, run: Run) -> None:
        self.before = simulated.reads

    def on_step(self, run: Run) -> None:
        self.counts.append(simulated.reads - self.before)
        self.before = simulated.reads


def waiting(model: nn.Module) -> None:
    """Losses, goals and weights are looked at in steps that are logged, and in no other."""
    task, watching = TASKS["class"], Reads()
    objective = (
        L.cross_entropy(on="retain")
        + 0.5 * L.kl(on="retain", to=L.Teacher(model))
        + L.cross_entropy(on="forget", to=L.Cached(L.Boundary(model, PerturbedSign(0.1))))
        + L.cross_entropy(on="forget", to=L.RandomLabels(3), name="drawn")
    )
    program = Phase(objective, engine.streams_for(task, objective), steps=8, batch_size=4, clip=1.0, optimizer="adam")
    fit(model, program, device=NAME, callbacks=[watching], log_every=4)
    logged = [step for step, count in enumerate(watching.counts) if count]
    assert logged == [0, 4, 7], watching.counts


def callbacks(model: nn.Module) -> None:
    task = TASKS["class"]
    watching = [
        StopWhen(lambda m: metrics.accuracy(m, task.forget), lambda value: value < 0),
        BestSoFar(lambda m: metrics.accuracy(m, task.retain)),
    ]
    for callback in (*watching, WeightAverage(0.5, every=2)):
        algorithms.finetune(model, task, steps=4, batch_size=20, device=NAME, callbacks=[callback])


def targets(model: nn.Module) -> dict[str, Any]:
    uniform = L.Uniform(3)
    return {
        "boundary": L.Boundary(model, SEARCH, soft=True, top_k=2, mix=0.5, uncrossed="runner-up"),
        "cached boundary": L.Cached(L.Boundary(model, SEARCH)),
        "contradiction": L.Contradiction(model, confidence=0.1),
        "other classes": L.OtherClasses(model),
        "random labels": L.RandomLabels(3, wrong_only=True),
        "uniform": uniform,
        "within": L.Within(uniform, label=(0, 1)),
    }


def planted(*, drawn: bool) -> None:
    """Two mistakes that only a device shows."""
    x = torch.zeros(3, device=NAME)
    if drawn:
        torch.rand(3, generator=torch.Generator(), device=x.device)
    else:
        _ = x + torch.ones(3)


def cases() -> dict[str, Callable[[], Any]]:
    """Return what is run, by name."""
    placed = {kind: model.to(NAME) for kind, model in networks().items()}
    model, segmenter, reader = placed["class"], placed["masks"], placed["finding"]
    task, masks, finding = TASKS["class"], TASKS["masks"], TASKS["finding"]
    other = models.small_cnn(num_classes=3, channels=1, width=4).to(NAME).eval()
    named: dict[str, Callable[[], Any]] = {
        "planted tensor": partial(planted, drawn=False),
        "planted generator": partial(planted, drawn=True),
    }
    for name in algorithms.__all__:
        for kind in engine.facts_of(getattr(algorithms, name)).kinds:
            asked = {"classification": "class", "segmentation": "masks", "multilabel": "finding"}[kind]
            if asked == "class" or name == "perturbed_sign":
                named[f"{name} {asked}"] = partial(algorithm, name, asked, placed[asked])
    for kind, network in placed.items():
        x, y = batch(kind)
        named[f"search {kind}"] = partial(SEARCH.search, network, x, y)
    x, y = batch()
    named["certificate"] = partial(PerturbedSign(0.1).search, model, x, y, certificate=True)
    for noise in DISTRIBUTIONS:
        named[f"noise {noise}"] = partial(PerturbedSign(0.1, noise=0.1, noise_distribution=noise).search, model, x, y)
    for update in ("projected", "frank-wolfe"):
        search = PerturbedSign(0.1, steps=3, update=update, stop_when_flipped=True)
        named[f"update {update}"] = partial(search.search, model, x, y)
    named["radii"] = partial(SEARCH.radii, model, x, y)
    for mode in ("unrolled", "implicit"):
        smooth = PerturbedSign(0.1, steps=3, closeness=0.5, noise=0.1)
        named[f"gradient {mode}"] = partial(smoothed_search, smooth, model, x, y, mode=mode, strict=False)
    for title, target in targets(model).items():
        named[f"target {title}"] = partial(training, model, L.cross_entropy(on="forget", to=target), task)
    teacher = L.Teacher(other)
    terms = {
        "kl": L.kl(on="retain", to=teacher, temperature=2.0),
        "mse": L.mse(on="retain", to=teacher),
        "bce": L.bce(on="retain"),
        "weights": L.cross_entropy(on="retain", weight=(1.0, 2.0, 1.0)),
        "norm": L.cross_entropy(on="retain") + 1e-3 * L.parameter_norm(1.5),
        "distance": L.cross_entropy(on="retain") + 1e-3 * L.weight_distance(networks()["class"]),
    }
    named |= {f"term {title}": partial(training, model, term, task, clip=1.0) for title, term in terms.items()}
    dice = L.dice_bce(on="retain", weight=(1.0, 2.0))
    named["term dice"] = partial(training, segmenter, dice, masks, optimizer="adam")
    named["term findings"] = partial(
        training, reader, L.cross_entropy(on="forget", to=L.Findings(L.Uniform(2), (1,))), finding
    )
    masked = {"head.weight": torch.rand(model.get_parameter("head.weight").shape) < 0.5}
    named["masks of parameters"] = partial(training, model, terms["bce"], task, masks=masked, batch_norm="update")
    for balance in ("nash", "pcgrad"):
        both = L.cross_entropy(on="forget") + L.cross_entropy(on="retain")
        named[f"balance {balance}"] = partial(training, model, both, task, balance=balance)
    named["joint"] = partial(training, model, both, task, joint=True)
    named["divergence"] = partial(divergence, model)
    named["waiting"] = partial(waiting, model)
    named["callbacks"] = partial(callbacks, model)
    named["train"] = partial(train, model, task.retain, epochs=1)
    for kind, network in placed.items():
        named[f"evaluate {kind}"] = partial(metrics.evaluate, network, TASKS[kind], network)
    named |= {
        "device of a metric": partial(metrics.accuracy, networks()["class"], task.retain, device=NAME),
        "leakage": partial(metrics.class_leakage, model, task, other, limit=20),
        "membership": partial(metrics.membership_inference, model, task),
        "features": partial(metrics.feature_distance, model, other, task.retain_test),
        "layers": partial(metrics.layerwise_distance, model, other),
        "quantised": partial(metrics.quantize_attack, model, task),
        "zrf": partial(metrics.zrf, model, task.forget),
        "probe": partial(audits.linear_probe, model, task, other),
        "few shots": partial(audits.few_shot_recovery, model, task, other, draws=2),
        "relearning": partial(audits.relearn_time, model, task, original=1.0, max_steps=2, every=1),
        "own loss": partial(difficulty.own_loss, model, task),
        "ridge loss": partial(difficulty.ridge_loss, model, task),
        "squared gradients": partial(mean_squared_gradients, model, [(x, y)], loss=label_cross_entropy),
        "ties": partial(composition.ties, model, [other, other]),
        "dare": partial(composition.dare, model, [other]),
        "slerp": partial(composition.slerp, model, other, 0.5),
        "statistics": partial(composition.interpolate, model, other, 0.5, recalibrate=task.retain),
        "path": partial(composition.tradeoff_path, model, other, task, points=2, bound_samples=1),
        "adapters": lambda: adapters.switched_off(
            algorithms.erase_to_retain(model, task, device=NAME, **promises.QUICK["erase_to_retain"]).model
        ).__enter__(),
    }
    for mode in ("vmap", "sequential"):
        build = partial(models.small_cnn, num_classes=3, channels=1, width=4)
        named[f"ensemble {mode}"] = partial(
            audits.train_ensemble,
            build,
            task.retain,
            [range(10), range(5, 15)],
            seeds=[0, 1],
            epochs=1,
            batch_size=4,
            mode=mode,
            device=NAME,
        )
    return named


def main() -> None:
    """Run every case and print what came of it."""
    set_up()
    warnings.simplefilter("ignore")
    only = sys.argv[1:]
    with available():
        for name, run in cases().items():
            if only and not any(part in name for part in only):
                continue
            error = None
            try:
                run()
            except Exception as raised:
                error = f"{type(raised).__name__}: {str(raised).partition(chr(10))[0]}"
                if only:
                    raise
            print(json.dumps([name, error]), flush=True)


if __name__ == "__main__":
    main()
