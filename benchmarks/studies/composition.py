"""What each way of composing revisions did: ``python -m benchmarks.studies.composition --data NAME --out DIR``.

Part one composes a run that forgets too much with one that forgets too little, by every strategy, and sets the path
between them beside a sweep that trained every point. Part two composes two runs that each forgot a class of their own.
Choices (the place on a path, coefficients, a soup) are made on one half of the held-out data, figures come from the
other half.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import algorithms
from unlearn_kit import UnlearnTask, load_model, save_model
from unlearn_kit import composition as C
from unlearn_kit.audits import linear_probe, relearn_time
from unlearn_kit.data import DataBundle, in_order, load, subset
from unlearn_kit.engine import train
from unlearn_kit.errors import check_choice
from unlearn_kit.evidence.software import versions
from unlearn_kit.files import write_json
from unlearn_kit.gradients import mean_squared_gradients
from unlearn_kit.hashing import hash_config
from unlearn_kit.metrics import Evaluation, evaluate
from unlearn_kit.seeding import derive, isolated

from ..demo.config import DemoConfig
from ..setup.methods import Method
from ..setup.recipes import RECIPES, Blueprint
from .composition_tables import draw, summary

SWEEP = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
Made = tuple[nn.Module, float]  # a model, and the seconds it took beside the parents


@dataclass(frozen=True)
class Options:
    """What is measured, and on how much; see the command's help."""

    data: str
    out: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    models: Path | None = None
    train_size: int | None = None
    epochs: int | None = None
    judge_size: int = 10_000
    forget: int = 0
    second: int = 1
    strong_forget: str = "perturbed_sign:retain_weight=0:steps=20"
    strong_retain: str = "perturbed_sign:retain_weight=30:steps=3"
    separate: str = "perturbed_sign"
    keep_out: str = "none"
    points: int = 11
    sweep: tuple[float, ...] = SWEEP
    audits: int = 3
    bezier_steps: int = 60

    @property
    def kept(self) -> Path:
        """Where trained models are kept: a folder for each data set, recipe and pair of classes."""
        settings = [self.data, self.train_size, self.epochs, self.forget, self.second]
        return self.out / "models" / hash_config(settings)[:8]


@dataclass
class Study:
    """One seed: the data, the original, and the figures as they come."""

    options: Options
    seed: int
    bundle: DataBundle
    network: Blueprint
    training: dict[str, Any]
    folder: Path
    task: UnlearnTask
    record: dict[str, Any] = field(default_factory=dict)

    def stored(self, name: str, make: Callable[[], nn.Module]) -> nn.Module:
        """Return the model ``name`` from ``--models`` or an earlier run, or else made and kept."""
        for folder in (self.options.models, self.options.kept):
            path = None if folder is None else folder / f"seed{self.seed}" / f"{name}.safetensors"
            if path is not None and path.is_file():
                return load_model(self.network(), path).eval()
        started = time.perf_counter()
        model = make().eval()
        self.record.setdefault("training_seconds", {})[name] = time.perf_counter() - started
        save_model(model, self.folder / f"{name}.safetensors")
        return model

    def original(self) -> nn.Module:
        """Return Trained on everything."""
        with isolated(derive(self.seed, "original")):
            fresh = self.network()
        return self.stored("original", lambda: train(fresh, self.bundle.train, seed=self.seed, **self.training).model)

    def retrained(self, name: str, original: nn.Module, task: UnlearnTask) -> nn.Module:
        """Return Trained on what ``task`` retains."""
        return self.stored(
            name,
            lambda: algorithms.retrain(original, task, build=self.network, seed=self.seed, **self.training).model,
        )

    def run(self, text: str, original: nn.Module, task: UnlearnTask, *keys: object) -> Made:
        """Return a revision by the method and options that ``text`` names."""
        method = Method(text)
        result = getattr(algorithms, method.name)(original, task, seed=derive(self.seed, text, *keys), **method.options)
        return result.model, result.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study for every seed and write ``study.json``, ``study.md`` and ``path-seedN.png``."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    records = []
    for seed in options.seeds:
        records.append(study_seed(options, seed))
        report = {"options": {k: _text(v) for k, v in vars(options).items()}, "seeds": records, "versions": versions()}
        write_json(report, options.out / "study.json")
        (options.out / "study.md").write_text(summary(records), encoding="utf-8")
    print(summary(records))
    return 0


def study_seed(options: Options, seed: int) -> dict[str, Any]:
    """Return both parts for one seed, as plain values."""
    recipe = RECIPES[options.data]
    sized: dict[str, Any] = {} if options.train_size is None else {"train_size": options.train_size}
    bundle = load(options.data, **sized)
    network = Blueprint(recipe.model, bundle.num_classes, channels=bundle.train[0][0].shape[0])
    training = DemoConfig(data=options.data, epochs=options.epochs).training
    folder = options.kept / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    task = _task(bundle, options.forget)
    study = Study(options, seed, bundle, network, training, folder, task, {"seed": seed})
    original = study.original()
    dial(study, original)
    two_classes(study, original)
    return study.record


def dial(study: Study, original: nn.Module) -> None:
    """Part one: two runs of one request, everything between them, and a sweep."""
    options, task = study.options, study.task
    judging = _judged(task, options.judge_size)
    reference = study.retrained("reference", original, task)
    goal = evaluate(reference, judging, seed=study.seed)

    def scored(model: nn.Module) -> dict[str, Any]:
        return _scores(evaluate(model, judging, goal, seed=study.seed))

    forgets, forget_seconds = study.run(options.strong_forget, original, task)
    retains, retain_seconds = study.run(options.strong_retain, original, task)
    parents = forget_seconds + retain_seconds
    rows = {"original": scored(original), "reference": scored(reference)}
    rows |= {f"forgets most: {options.strong_forget}": {**scored(forgets), "seconds": forget_seconds}}
    rows |= {f"retains best: {options.strong_retain}": {**scored(retains), "seconds": retain_seconds}}
    models = {"original": original, "reference": reference}
    models |= dict(zip(list(rows)[2:], (forgets, retains), strict=True))

    started = time.perf_counter()
    path = C.tradeoff_path(forgets, retains, judging, options.points, seed=study.seed)
    path_seconds = time.perf_counter() - started
    objectives = C.held_out_objectives(judging)
    composed = strategies(study, original, forgets, retains, objectives)
    started = time.perf_counter()
    picked = C.pick(path, min(p.scores.forget_test or 0.0 for p in path.points))
    composed["dial"] = picked.model, path_seconds + time.perf_counter() - started
    for name, (model, seconds) in composed.items():
        rows[name] = {**scored(model), "seconds": seconds, "composed": True}
        models[name] = model
    sweep = []
    for weight in options.sweep:
        model, seconds = study.run(f"perturbed_sign:retain_weight={weight:g}", original, task)
        started = time.perf_counter()
        scores = scored(model)
        judging_seconds = time.perf_counter() - started
        sweep.append({"retain_weight": weight, "seconds": seconds, "judging": judging_seconds, **scores})
    # The path's figures for the report are of test data, which nothing was chosen on.
    started = time.perf_counter()
    points = [{"t": point.t, **scored(path.model_at(point.t))} for point in path.points]
    judged_seconds = time.perf_counter() - started
    curved = C.tradeoff_path(
        forgets, retains, judging, options.points, bezier=True, bezier_options={"steps": options.bezier_steps}
    )
    bound = path.bound
    study.record["dial"] = {
        "rows": rows,
        "path": points,
        "sweep": sweep,
        "picked": picked.t,
        "barrier": {
            "retain": path.retain_barrier,
            "forget": path.forget_barrier,
            "bezier_retain": curved.retain_barrier,
            **({} if bound is None else {"segment": bound.barrier, "bound": bound.barrier_bound, "holds": bound.holds}),
        },
        "cost": {
            "dial, training both ends": parents,
            f"dial, judging {len(points)} points": judged_seconds,
            f"sweep, training {len(sweep)} points": sum(point["seconds"] for point in sweep),
            f"sweep, judging {len(sweep)} points": sum(point["judging"] for point in sweep),
        },
    }
    _audit(study, models, original, task)
    draw(study.record["dial"], options.out / f"path-seed{study.seed}.png", options.data)


def strategies(
    study: Study,
    original: nn.Module,
    forgets: nn.Module,
    retains: nn.Module,
    objectives: Callable[[nn.Module], tuple[float, float]],
) -> dict[str, Made]:
    """Return every way to compose the run that forgets most with the one that retains best."""
    base, pair, task = original, [forgets, retains], study.task

    def score(model: nn.Module) -> float:
        return -sum(objectives(model))

    def searched() -> nn.Module:
        found = C.search_coefficients(
            lambda c: C.task_arithmetic(base, pair, c), objectives, [0.5, 0.5], tradeoffs=[0.5], evaluations=30
        )
        return C.task_arithmetic(base, pair, found.best().coefficients)

    ways: dict[str, Callable[[], nn.Module]] = {
        "interpolate(t=.5)": lambda: C.interpolate(forgets, retains, 0.5),
        "interpolate(t=.5), recalibrated": lambda: C.interpolate(forgets, retains, 0.5, recalibrate=task),
        "slerp(t=.5, base)": lambda: C.slerp(forgets, retains, 0.5, base=base),
        "swap_head": lambda: C.swap_head(retains, forgets),
        "swap_head, finetuned": lambda: C.swap_head(retains, forgets, finetune_on=task, epochs=1),
        "task_arithmetic(1, 1)": lambda: C.task_arithmetic(base, pair),
        "ties(density=.2)": lambda: C.ties(base, pair, density=0.2),
        "ties(density=1)": lambda: C.ties(base, pair, density=1.0),
        "dare(.5, .5, density=.5)": lambda: C.dare(base, pair, 0.5, 0.5, seed=study.seed),
        "neg_merge": lambda: C.neg_merge(base, pair),
        "fisher_merge": lambda: C.fisher_merge(pair, [_fisher(model, task, 1000) for model in pair]),
        "greedy_soup": lambda: C.greedy_soup(pair, score).model,
        "search_coefficients": searched,
    }
    return {name: _timed(way) for name, way in ways.items()}


def two_classes(study: Study, original: nn.Module) -> None:
    """Part two: one run a class, composed; the reference never saw either."""
    options = study.options
    requests = [study.task, _task(study.bundle, options.second)]
    joint = C.joint_task(requests)
    reference = study.retrained("reference-two", original, joint)
    served = {
        "none": requests,
        "earlier": C.cumulative_tasks(requests),
        "all": [replace(request, retain=joint.retain) for request in requests],
    }[options.keep_out]
    runs, seconds = zip(
        *(study.run(options.separate, original, task, place) for place, task in enumerate(served)), strict=True
    )
    pair, base = list(runs), original
    ways: dict[str, Callable[[Any], nn.Module]] = {
        "average": lambda data: C.average(pair, recalibrate=data),
        "slerp(t=.5, base)": lambda data: C.slerp(pair[0], pair[1], 0.5, base=base, recalibrate=data),
        "swap_head": lambda data: C.swap_head(*pair, recalibrate=data),
        "task_arithmetic(1, 1)": lambda data: C.task_arithmetic(base, pair, recalibrate=data),
        "task_arithmetic(1.5, 1.5)": lambda data: C.task_arithmetic(base, pair, 1.5, recalibrate=data),
        "ties(density=.2)": lambda data: C.ties(base, pair, density=0.2, recalibrate=data),
        "ties(density=1)": lambda data: C.ties(base, pair, density=1.0, recalibrate=data),
        "ties(density=1, scale=1.5)": lambda data: C.ties(base, pair, density=1.0, scale=1.5, recalibrate=data),
        "dare(density=.9)": lambda data: C.dare(base, pair, 1.0, 0.9, seed=study.seed, recalibrate=data),
        "neg_merge": lambda data: C.neg_merge(base, pair, recalibrate=data),
        "fisher_merge": lambda data: C.fisher_merge(
            pair, [_fisher(model, joint, 1000) for model in pair], recalibrate=data
        ),
    }
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, model: nn.Module, spent: float | None = None) -> None:
        scores = [_test_scores(model, request, joint) for request in requests]
        rows[name] = {"classes": [forget for forget, _ in scores], "retain": scores[0][1], "seconds": spent}

    add("original", original)
    add("reference", reference)
    for label, run, spent in zip((options.forget, options.second), pair, seconds, strict=True):
        add(f"run for class {label}", run, spent)
    for name, way in ways.items():
        for data, suffix in ((None, ""), (joint, ", recalibrated")):
            model, spent = _timed(lambda way=way, data=data: way(data))  # type: ignore[misc]
            add(name + suffix, model, spent)
    started = time.perf_counter()
    second = C.cumulative_tasks(requests)[1]
    sequence, _ = study.run(options.separate, pair[0], second, "sequence")
    add("one after the other", sequence, time.perf_counter() - started)
    study.record["two_classes"] = {"labels": [options.forget, options.second], "rows": rows}


def _audit(study: Study, models: dict[str, nn.Module], original: nn.Module, task: UnlearnTask) -> None:
    """Probe and relearn the original, the reference, both parents and the best of the composed models."""
    rows = study.record["dial"]["rows"]
    composed = sorted((name for name in rows if rows[name].get("composed")), key=lambda name: rows[name]["gap"])
    fixed = [name for name in rows if not rows[name].get("composed")]
    data = _judged(task, study.options.judge_size)
    for name in [*fixed, *composed[: study.options.audits]] if study.options.audits else []:
        probe = linear_probe(models[name], data, seed=study.seed)
        found: dict[str, Any] = {"probe": None if probe is None else probe.forget}
        for on in ("forget", "retain"):
            report = relearn_time(models[name], data, original=original, on=on, seed=study.seed)
            found[f"relearn_on_{on}"] = None if report is None else str(report)
        rows[name]["audit"] = found


def _task(bundle: DataBundle, label: int) -> UnlearnTask:
    return UnlearnTask.forget_class(bundle.train, bundle.test, label, num_classes=bundle.num_classes)


def _judged(task: UnlearnTask, size: int) -> UnlearnTask:
    """Return the task with at most ``size`` training samples to keep, and as many to forget, evenly spaced."""
    return replace(task, forget=_spaced(task.forget, size), retain=_spaced(task.retain, size), forget_indices=None)


def _spaced(data: Any, size: int) -> Any:
    if len(data) <= size:
        return data
    return subset(data, torch.linspace(0, len(data) - 1, size, dtype=torch.float64).round().long())


def _fisher(model: nn.Module, task: UnlearnTask, size: int) -> dict[str, torch.Tensor]:
    return mean_squared_gradients(model, in_order(_spaced(task.retain, size)))


def _scores(found: Evaluation) -> dict[str, Any]:
    names = ("forget", "retain", "forget_test", "retain_test", "membership")
    return {name: getattr(found, name) for name in names} | {"gap": found.average_gap, "tow": found.tug_of_war}


def _test_scores(model: nn.Module, request: UnlearnTask, joint: UnlearnTask) -> tuple[float | None, float | None]:
    none = subset(joint.retain, [])
    held_out = replace(joint, forget=request.forget_test, retain=none, forget_test=none, retain_test=joint.retain_test)
    found = evaluate(model, held_out)
    return found.forget, found.retain_test


def _timed(make: Callable[[], nn.Module]) -> Made:
    started = time.perf_counter()
    model = make()
    return model, time.perf_counter() - started


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.composition", description=__doc__)
    parser.add_argument("--data", default="digits", help="a data set of classes that has a recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder for figures, tables and models")
    parser.add_argument("--seeds", type=_numbers(int), default=Options.seeds, help="such as 0,1,2")
    parser.add_argument("--models", type=Path, help="folder of seedN/{original,reference,reference-two}.safetensors")
    parser.add_argument("--train-size", type=int, help="training images to keep")
    parser.add_argument("--epochs", type=int, help="of the original and the references")
    parser.add_argument(
        "--judge-size", type=int, default=Options.judge_size, help="training images scored, of each kind"
    )
    parser.add_argument("--forget", type=int, default=Options.forget, help="the class to forget")
    parser.add_argument("--second", type=int, default=Options.second, help="the other class of the second part")
    for name in ("strong_forget", "strong_retain", "separate"):
        parser.add_argument(f"--{name.replace('_', '-')}", default=getattr(Options, name), help="method:option=value")
    parser.add_argument("--keep-out", default=Options.keep_out, help="none, earlier or all: see apply_requests")
    parser.add_argument("--points", type=int, default=Options.points, help="of the path")
    parser.add_argument("--sweep", type=_numbers(float), default=SWEEP, help="retain weights of the sweep")
    parser.add_argument("--audits", type=int, default=Options.audits, help="composed models that are audited")
    parser.add_argument(
        "--bezier-steps", type=int, default=Options.bezier_steps, help="of the control point's training"
    )
    options = Options(**vars(parser.parse_args(arguments)))
    check_choice("--data", options.data, [name for name, recipe in RECIPES.items() if recipe.kind == "classification"])
    check_choice("--keep-out", options.keep_out, ("none", "earlier", "all"))
    for text in (options.strong_forget, options.strong_retain, options.separate):
        Method(text)
    return options


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(part) for part in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
