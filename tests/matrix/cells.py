"""One cell of the matrix: what becomes of one thing done to one network.

A cell is ``right``, ``refused`` or ``wrong``. Right: it did what it is for, gives the same bits again, and left the
caller's model and global state alone. Refused: a ValueError or TypeError of the toolkit's own named an argument before
anything was trained. Everything else is wrong.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

import algorithms
from networks import CLASSES, NETWORKS, SAMPLES, Network
from unlearn_kit import UnlearnTask, adapters, audits, composition
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import facts_of
from unlearn_kit.metrics import evaluate

OWN = tuple(str(Path(__file__).parents[2] / package) for package in ("unlearn_kit", "algorithms"))


@dataclass(frozen=True)
class Outcome:
    """What became of a cell, and the error or the fault in words ("" where it is right)."""

    kind: Literal["right", "refused", "wrong"]
    why: str = ""


class RefusedError(Exception):
    """A refusal as it should be."""


class WrongError(Exception):
    """A fault."""


@dataclass(frozen=True)
class Case:
    """A network with the data to try things on."""

    network: Network
    model: nn.Module
    task: UnlearnTask

    @property
    def inputs(self) -> Tensor:
        return self.task.forget.dataset.inputs

    def logits(self, model: nn.Module) -> Tensor:
        """Return the logits of ``model`` in eval mode, in float32, as a user would compute them by hand."""
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        modes = [module.training for module in model.modules()]
        with torch.no_grad():
            logits = self.network.logits(model.eval()(self.inputs.to(dtype, copy=True))).float()
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
        return logits


@functools.cache
def case_of(name: str) -> Case:
    """Build a network once a process and train it a little; one module is in training mode, and has a hook."""
    network = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, task = network.build(), (masks if network.masks else labels)(network.shape)
        x, y = task.forget.dataset.inputs, task.forget.dataset.targets
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=1e-2)
        for _ in range(10):
            optimizer.zero_grad()
            functional.cross_entropy(
                network.logits(model.train()(x.to(weights[0].dtype, copy=True))).float(), y
            ).backward()
            optimizer.step()
        optimizer.zero_grad()
    model.eval()
    *_, last = model.modules()
    last.train()
    last.register_forward_hook(unchanged)
    return Case(network, model, task)


def unchanged(module: nn.Module, inputs: Any, output: Any) -> None:
    """A hook of the caller's own."""


def labels(shape: tuple[int, ...]) -> UnlearnTask:
    """Three classes, told apart by a bright channel."""
    y = torch.arange(SAMPLES) % CLASSES
    x = 0.5 * torch.rand(SAMPLES, *shape)
    x[torch.arange(SAMPLES), y] += 0.4
    return UnlearnTask.forget_class(TensorImages(x, y), TensorImages(x.flip(-1), y), 0, validation_seed=1)


def masks(shape: tuple[int, ...]) -> UnlearnTask:
    """A bright block on noise, of another size in each image, and its mask."""
    x, y = 0.5 * torch.rand(SAMPLES, *shape), torch.zeros(SAMPLES, *shape[1:], dtype=torch.int64)
    for i in range(SAMPLES):
        block = (i, ..., slice(2 + i % 3, 6), *[slice(2, 8)] * (len(shape) - 2))
        x[block] += 0.4
        y[block] = 1
    return UnlearnTask.forget_random(TensorImages(x, y), TensorImages(x.flip(-1), y.flip(-1)), 0.25, num_classes=2)


# What is done ---------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "amun": {"search_steps": 3, "max_radius": 100.0},
    "augmentation_matching": {"tolerance": 1.0},  # of networks that know nothing yet
    "erase_to_retain": {"rounds": 1, "rank": 2, "restore_epochs": 1, "batch_size": 6},
    "influence": {"iterations": 2},
    "jit": {"draws": 2},
    "lfssd": {"alpha": 0.5},
    "mean_feature_head": {"rounds": 1},
    "quantile_matching": {"max_share": 1.0},  # of few samples a class is a third
    "retrain": {"epochs": 1},
    "scrub": {"epochs": 1, "msteps": 1},
    "ssd": {"alpha": 0.5},
    "unsir": {"noise_samples": 4, "noise_steps": 1},
}


def method(name: str) -> Callable[[Case], None]:
    """Return a check of the method: it edits, gives the same bits again, and keeps what the model is."""
    function = getattr(algorithms, name)
    known = inspect.signature(function).parameters.keys()
    lengths = {"steps": 1, "batch_size": 6} if "epochs" not in OPTIONS.get(name, {}) else {"batch_size": 6}
    options = {key: value for key, value in lengths.items() if key in known} | OPTIONS.get(name, {})

    def check(case: Case) -> None:
        given = {"references": [moved(plain(case.model), 0.01)]} if facts_of(function).reads_reference else {}
        first = ask(function, case.model, case.task, seed=1, **options, **given).model
        torch.rand(3)  # The seed alone decides, wherever the caller's random numbers are.
        again = ask(function, plain(case.model), case.task, seed=1, **options, **given).model
        expect(same(first.state_dict(), again.state_dict()), "two runs of one seed differ, or a wrapper shows")
        before, after = plain_state(case.model), plain_state(first)
        expect(before.keys() == after.keys(), f"other names in the state: {some(before.keys() ^ after.keys())}")
        expect(all(before[key].dtype == after[key].dtype for key in before), "another dtype")
        expect(all(finite(value) for value in first.state_dict().values()), "a weight is not finite")
        edited = case.logits(first)
        expect(finite(edited), "a logit is not finite")
        expect(not torch.equal(edited, case.logits(case.model)), "the outputs did not change")
        expect(modes(first, case.model), "other modes than the caller's model")
        if not facts_of(function).reinitializes:
            for key, parameter in plain(case.model).named_parameters():
                expect(parameter.requires_grad or same_bits(after[key], parameter), f"frozen {key} moved")
        if hasattr(first, "peft_config"):
            check_adapters(case, first)
        else:
            expect(sharing(first) == sharing(plain(case.model)), "tensors are not shared as they were")

    return check


def check_adapters(case: Case, adapted: nn.Module) -> None:
    """Check that adapters act, are gone when switched off, and act alike when merged."""
    original, acting = case.logits(case.model), case.logits(adapted)
    with adapters.switched_off(adapted):
        expect(torch.equal(case.logits(adapted), original), "switched off, the outputs are not the original's")
    merged = case.logits(adapters.merge(adapted))
    scale = float(acting.abs().max())
    # float32 sums of some hundred products in another order; bf16 keeps eight bits of a merged weight.
    margin = 1e-4 if next(plain(case.model).parameters()).dtype == torch.float32 else 5e-2
    gap = float((merged - acting).abs().max())
    expect(gap <= margin * (1 + scale), f"merged and adapted differ by {gap:.2g}")
    expect(not torch.equal(acting, original), "attached adapters do not act")


def attach(case: Case) -> None:
    """Attach adapters to all layers: nothing changes until they move, and then something does."""
    adapted = ask(adapters.attach, case.model, "all", rank=2)
    # Of the same flags: torch multiplies in another order where a weight takes gradients, even under no_grad.
    frozen = copy.deepcopy(case.model).requires_grad_(False)
    expect(torch.equal(case.logits(adapted), case.logits(frozen)), "fresh adapters change the outputs")
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in trained:
            parameter.normal_(std=0.3)
    check_adapters(case, adapted)
    expect(modes(adapted, case.model), "other modes than the caller's model")


def evaluation(case: Case) -> None:
    """Evaluate, beside scores computed by hand."""
    found = ask(evaluate, case.model, case.task)
    expect(found == ask(evaluate, case.model, case.task), "two evaluations differ")
    chosen = case.logits(case.model).argmax(dim=1).numpy()[case.task.forget.indices]
    truth = case.task.forget.dataset.targets.numpy()[case.task.forget.indices]
    if case.network.masks:
        pairs = list(zip(chosen, truth, strict=True))
        wanted = np.mean([((a == 1) & (b == 1)).sum() / ((a == 1) | (b == 1)).sum() for a, b in pairs])
    else:
        wanted = np.mean(chosen == truth)
    expect(math.isclose(found.forget, wanted, abs_tol=1e-6), f"forget is {found.forget}, by hand {wanted}")


def probe(case: Case) -> None:
    """Probe the features twice."""
    found = ask(audits.linear_probe, case.model, case.task, pixels=4)
    expect(found == ask(audits.linear_probe, case.model, case.task, pixels=4), "two probes differ")
    expect(found is not None and 0 <= found.forget <= 1, f"the score is {found}")


def relearning(case: Case) -> None:
    """Relearn for a step, twice."""
    options = {"original": 1.0, "max_steps": 1, "every": 1, "batch_size": 6}
    found = ask(audits.relearn_time, case.model, case.task, **options)
    expect(found == ask(audits.relearn_time, case.model, case.task, **options), "two runs of one seed differ")
    expect(all(0 <= score <= 1 for _, score in found.scores), f"the scores are {found.scores}")


def merge(function: Callable[..., Any], *arguments: str, **options: Any) -> Callable[[Case], None]:
    """Return a check that a merge of a model with itself is itself, and with another one a third.

    ``arguments`` say what each positional argument is: "model", "models" (a list of two), or a key of ``options``.
    """

    def check(case: Case) -> None:
        other = moved(case.model)
        for second in (case.model, other):
            values = {"model": case.model, "second": second, "models": [second, second], "both": [case.model, second]}
            if "fishers" in arguments:
                ones = {key: torch.ones_like(p) for key, p in case.model.named_parameters()}
                values["fishers"] = [ones, ones]
            merged = ask(function, *(values[key] for key in arguments), **options)
            merged = merged.model if isinstance(merged, composition.Soup) else merged
            expect(all(finite(value) for value in merged.state_dict().values()), "a merged weight is not finite")
            names = merged.state_dict().keys() ^ plain(case.model).state_dict().keys()
            expect(not names, f"other names in the state: {some(names)}")
            expect(sharing(merged) == sharing(plain(case.model)), "tensors are not shared as they were")
            expect(modes(merged, case.model), "other modes than the caller's model")
            unmoved = same(plain_state(merged), plain_state(case.model))
            if second is case.model:
                expect(unmoved, "a merge with itself is not itself")
                expect(torch.equal(case.logits(merged), case.logits(case.model)), "itself gives other outputs")
            else:
                expect(not unmoved, "a merge with another is the first")

    return check


def total(model: nn.Module) -> float:
    return sum(float(parameter.detach().sum()) for parameter in model.parameters())


def moved(model: nn.Module, by: float = 0.125) -> nn.Module:
    """Return a copy whose parameters are a little further, all in one direction."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by)
    return other


ROWS: dict[str, Callable[[Case], None]] = {
    **{name: method(name) for name in algorithms.__all__},
    "evaluate": evaluation,
    "linear_probe": probe,
    "relearn_time": relearning,
    "adapters": attach,
    "interpolate": merge(composition.interpolate, "model", "second", t=0.3),
    "slerp": merge(composition.slerp, "model", "second", t=0.3),
    "average": merge(composition.average, "both"),
    "fisher_merge": merge(composition.fisher_merge, "both", "fishers"),
    "task_arithmetic": merge(composition.task_arithmetic, "model", "models", weights=0.3),
    "ties": merge(composition.ties, "model", "models"),
    "dare": merge(composition.dare, "model", "models"),
    "neg_merge": merge(composition.neg_merge, "model", "models"),
    "swap_head": merge(composition.swap_head, "model", "second"),
    "bezier": merge(composition.bezier, "model", "second", "second", t=0.4),
    "greedy_soup": merge(composition.greedy_soup, "both", score=total),
}


# What is looked at ----------------------------------------------------------------------------------------------------


def outcome(row: str, name: str) -> Outcome:
    """Return what becomes of ``row`` on the network ``name``."""
    case = case_of(name)
    before = snapshot(case.model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ROWS[row](case)
        found = Outcome("right")
    except RefusedError as refusal:
        found = Outcome("refused", str(refusal))
    except WrongError as fault:
        found = Outcome("wrong", str(fault))
    except Exception as error:  # whatever fails is what is being counted
        found = Outcome("wrong", f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
    touched = [what for what, value in snapshot(case.model).items() if not alike(value, before[what])]
    if touched:
        case_of.cache_clear()
        return Outcome("wrong", f"changed the caller's model: {', '.join(touched)}")
    return found


def ask(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a public function; tell its own refusals, in time and by name, from everything else that can happen."""
    world = surroundings()
    with counted() as work:
        try:
            result = function(*arguments, **options)
        except (ValueError, TypeError) as error:
            text = str(error).strip().splitlines()[0]
            parameters = "|".join(re.escape(name) for name in inspect.signature(function).parameters)
            own = traceback.extract_tb(error.__traceback__)[-1].filename.startswith(OWN)
            if not own or not re.search(rf"\b({parameters}|head)\b", text):
                fail(f"{type(error).__name__}: {text}")
            if work["done"]:
                fail(f"refused after the training began: {text}")
            raise RefusedError(text) from error
    changed = [what for what, value in surroundings().items() if not alike(value, world[what])]
    expect(not changed, f"changed the caller's {', '.join(changed)}")
    return result


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count optimiser steps and backward passes: what a refusal must come before."""
    work = {"done": 0}
    own = torch.autograd.backward

    def backward(*arguments: Any, **options: Any) -> None:
        work["done"] += 1
        own(*arguments, **options)

    def step(*_: Any) -> None:
        work["done"] += 1

    handle = register_optimizer_step_pre_hook(step)
    torch.autograd.backward = backward
    try:
        yield work
    finally:
        torch.autograd.backward = own
        handle.remove()


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all that must stay as it is of the caller's model."""
    modules = list(model.modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {key: value.clone() for key, value in model.state_dict().items()},
        "tensors": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "modes": [module.training for module in modules],
        "hooks": [len(getattr(module, kind)) for module in modules for kind in hooks],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad is None for parameter in model.parameters()],
        "classes": [type(module) for module in modules],
    }


def surroundings() -> dict[str, Any]:
    """Return all that must stay as it is of the process."""
    _, keys, place, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "random state": (random.getstate(), keys.tolist(), place, rest),
        "torch's random state": torch.get_rng_state(),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
    }


def alike(a: Any, b: Any) -> bool:
    """Return whether two values are equal, tensors bit for bit."""
    if isinstance(a, dict):
        return same(a, b)
    return same_bits(a, b) if isinstance(a, Tensor) else a == b


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(same_bits(value, b[key]) for key, value in a.items())


def plain(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one."""
    return getattr(model, "_orig_mod", model)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state under the original's names, without what adapters add."""
    return adapters.base_state(model) if hasattr(model, "peft_config") else plain(model).state_dict()


def sharing(model: nn.Module) -> list[list[str]]:
    """Return the names of tensors that are one."""
    groups: dict[int, list[str]] = {}
    for key, value in plain(model).state_dict(keep_vars=True).items():
        groups.setdefault(id(value), []).append(key)
    return sorted(names for names in groups.values() if len(names) > 1)


def modes(model: nn.Module, like: nn.Module) -> bool:
    """Return whether the modules of ``model`` that ``like`` has too are in the same mode."""
    own = {re.sub(r"^(base_model\.model\.|_orig_mod\.)", "", name): m.training for name, m in model.named_modules()}
    return all(own.get(name, m.training) == m.training for name, m in plain(like).named_modules())


def finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def some(names: Any) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def expect(holds: bool, fault: str) -> None:
    if not holds:
        fail(fault)


def fail(fault: str) -> NoReturn:
    raise WrongError(fault)
