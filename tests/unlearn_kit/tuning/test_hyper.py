"""Gradients through a whole run: against the engine's own run, forward mode, and finite differences."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from unlearn_kit import adapters
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign, smoothed_search
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Phase, Stream, fit
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive
from unlearn_kit.tuning import Unrolled, expected_accuracy, newton, scale_adapters, unroll, weighted

STEPS = 6


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(3 * 16, 3)).double()


def data(seed: int, count: int = 12) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 4, 4, generator=source, dtype=torch.float64)
    return TensorImages(x, torch.randint(3, (count,), generator=source))


STREAMS = {"forget": data(0), "retain": data(1)}
HELD_OUT = data(2)
FORGET, RETAIN = "cross_entropy(forget -> Labels)", "cross_entropy(retain -> Labels)"
OBJECTIVE = -0.5 * L.cross_entropy(on="forget") + 2.0 * L.cross_entropy(on="retain")
KNOBS = {FORGET: "erase", RETAIN: "keep"}
LEVEL = expected_accuracy(HELD_OUT.inputs, HELD_OUT.targets)
RUN = {"lr": cosine(0.2, 0.05), "momentum": 0.9, "clip": 0.5}


def batches(size: int = 5) -> list[dict[str, L.Batch]]:
    """What the engine reads with seed 3, in a phase called "unlearn"."""
    readers = {name: Stream(name, part, size, derive(3, "0.unlearn")).read(0, STEPS) for name, part in STREAMS.items()}
    steps = []
    for _ in range(STEPS):
        read = {name: next(reader) for name, reader in readers.items()}
        steps.append({name: L.Batch(x, y, rows, name) for name, (rows, x, y) in read.items()})
    return steps


def run(erase: float = 1.0, keep: float = 1.0, **options) -> Unrolled:
    knobs = {"erase": erase, "keep": keep}
    return unroll(network(), weighted(OBJECTIVE, KNOBS), LEVEL, knobs, batches(), **{**RUN, **options})


# --- the run itself -------------------------------------------------------------------------------


def test_the_unrolled_run_is_the_run_of_the_engine():
    # Without dropout, which the engine trains with.
    plain = network()
    plain[3].p = 0.0
    phase = Phase(OBJECTIVE, STREAMS, steps=STEPS, batch_size=5, name="unlearn", **RUN)
    trained = dict(fit(plain, phase, seed=3).model.named_parameters())
    found = run().parameters
    assert found.keys() == trained.keys()
    assert all(torch.allclose(value, trained[name], atol=1e-9) for name, value in found.items())
    assert any((value - dict(plain.named_parameters())[name]).abs().max() > 1e-2 for name, value in found.items())


def test_the_model_and_the_random_state_stay_as_they_were():
    model = network().train()
    model[0].weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = unroll(model, weighted(OBJECTIVE, KNOBS), LEVEL, {"erase": 1.0, "keep": 1.0}, batches())
    assert "0.weight" not in found.parameters
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


# --- its derivative -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"clip": None}, {"clip": None, "momentum": 0.0, "lr": 0.1}])
def test_the_gradients_are_those_of_finite_differences(options):
    at, step = {"erase": 0.7, "keep": 1.3}, 1e-5
    found = run(**at, **options)
    for name in at:
        ends = [run(**{**at, name: at[name] + sign * step}, **options).level for sign in (1, -1)]
        assert abs(found.gradients[name]) > 1e-4
        assert found.gradients[name] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_the_gradients_are_those_of_forward_mode():
    """The same run as a pure function of the weights of the terms, pushed forward by ``torch.func.jvp``."""
    model = network().eval()
    start = {name: p.detach() for name, p in model.named_parameters()}
    steps = batches()

    def loss(weights: dict[str, Tensor], part: L.Batch) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (part.inputs,)), part.targets)

    def final(erase: Tensor, keep: Tensor) -> Tensor:
        weights, velocity = start, {name: torch.zeros_like(p) for name, p in start.items()}
        for number, step in enumerate(steps):
            lr = 0.05 + 0.15 * (1 + math.cos(math.pi * number / STEPS)) / 2

            def total(w: dict[str, Tensor], step: dict[str, L.Batch] = step) -> Tensor:
                return -0.5 * erase * loss(w, step["forget"]) + 2.0 * keep * loss(w, step["retain"])

            g = torch.func.grad(total)(weights)
            velocity = {name: 0.9 * velocity[name] + g[name] for name in g}
            weights = {name: weights[name] - lr * velocity[name] for name in g}
        p = functional_call(model, weights, (HELD_OUT.inputs,)).softmax(1)
        return p.gather(1, HELD_OUT.targets[:, None]).mean()

    found = run(0.7, 1.3, clip=None)
    at = (torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64))
    for place, name in enumerate(("erase", "keep")):
        tangents = tuple(torch.tensor(float(place == i), dtype=torch.float64) for i in range(2))
        with warnings.catch_warnings():
            # torch's forward mode compiles with its own deprecated torch.jit.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            level, slope = jvp(final, at, tangents)
        assert found.level == pytest.approx(float(level), rel=1e-9)
        assert found.gradients[name] == pytest.approx(float(slope), rel=1e-7)


@pytest.mark.parametrize("mode", ["unrolled", "implicit"])
def test_closeness_and_noise_are_knobs_through_the_smoothed_search(mode):
    """The soft labels of the boundary depend on them, the steps on the labels, the level on the steps."""
    original = network().eval().requires_grad_(False)
    original[2] = nn.Tanh()  # With kinks, the highest point of some sample is one, and has no derivative.
    with torch.no_grad():
        for p in original.parameters():
            p.mul_(2.0)
    search = PerturbedSign(0.3, 3, 0.1, closeness=25.0, noise=0.5)
    step, at = 1e-4, {"closeness": 25.0, "noise": 0.5}

    def loss(model, batch, knobs) -> Tensor:
        forget, retain = batch["forget"], batch["retain"]
        found = smoothed_search(search, original, forget.inputs, forget.targets, mode=mode, tolerance=1e-9, **knobs)
        kept = F.cross_entropy(model(retain.inputs), retain.targets)
        return F.cross_entropy(model(forget.inputs), found.logits.softmax(1)) + kept

    def reach(**knobs: float) -> Unrolled:
        return unroll(network(), loss, LEVEL, knobs, batches()[:2], lr=0.3)

    found = reach(**at)
    for name in at if mode == "unrolled" else ("closeness",):
        ends = [reach(**{**at, name: at[name] + sign * step}).level for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope) > 1e-8
        assert found.gradients[name] == pytest.approx(slope, rel=1e-2)


def test_the_scale_of_adapters_is_a_knob():
    adapted = adapters.attach(network().eval(), "all", rank=2, alpha=8)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    inside = weighted(OBJECTIVE, {})

    def loss(model, batch, knobs) -> Tensor:
        scale_adapters(model, knobs["scale"])
        return inside(model, batch, knobs)

    def level(model, knobs) -> Tensor:
        scale_adapters(model, knobs["scale"])
        return LEVEL(model, knobs)

    def reach(scale: float) -> Unrolled:
        return unroll(adapted, loss, level, {"scale": scale}, batches(), lr=0.1, momentum=0.9)

    found = reach(0.8)
    assert found.gradients["scale"] == pytest.approx(
        (reach(0.8 + 1e-5).level - reach(0.8 - 1e-5).level) / 2e-5, rel=1e-5
    )
    # At scale 0 and without a step, what is left is the model itself; and the adapters' own scale did not change.
    with torch.no_grad():
        plain = float(LEVEL(network().eval(), {}))
    assert unroll(adapted, loss, level, {"scale": 0.0}, []).level == pytest.approx(plain)
    assert all(m.scaling["default"] == 4.0 for m in adapted.modules() if hasattr(m, "scaling"))


# --- following it ---------------------------------------------------------------------------------


def test_newton_steps_reach_a_level_in_a_few_runs():
    def reach(keep: float) -> Unrolled:
        return run(1.0, keep, clip=None)

    low, high = reach(0.05).level, reach(5.0).level
    wanted = low + 0.4 * (high - low)
    found = newton(reach, "keep", 1.0, wanted=wanted, bounds=(0.05, 5.0), tolerance=1e-3, budget=10)
    assert reach(found.knob).level == pytest.approx(wanted, abs=1e-3)
    assert found.level == pytest.approx(wanted, abs=1e-3)
    assert found.runs == len(found.tried) <= 6
    assert 0.05 <= found.knob <= 5.0


def test_newton_steps_bisect_where_the_slope_says_nothing():
    def step_function(knob: float) -> Unrolled:
        x = 40 * (math.log(knob) - 0.3)
        value = 1 / (1 + math.exp(-x))
        return Unrolled(value, {"k": 40 * value * (1 - value) / knob}, {})

    found = newton(step_function, "k", 0.11, wanted=0.5, bounds=(0.1, 10.0), tolerance=0.01, budget=20)
    assert found.level == pytest.approx(0.5, abs=0.01)
    assert np.log(found.knob) == pytest.approx(0.3, abs=1e-2)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"knobs": {}}, ValueError, "^expected at least one knob, but got none$"),
        ({"knobs": {"keep": "much"}}, TypeError, "^expected knobs\\['keep'\\] to be a number, but got str: 'much'$"),
        ({"momentum": 1.0}, ValueError, r"^expected momentum in \[0, 1\), but got 1.0$"),
        ({"clip": 0.0}, ValueError, r"^expected clip in \(0, inf\), but got 0.0$"),
        ({"lr": lambda _: None}, TypeError, "^expected what lr returns to be a number, but got NoneType: None$"),
        ({"loss": lambda *_: None}, TypeError, "^expected what loss returns to be a Tensor, but got NoneType$"),
        ({"level": lambda *_: 0.5}, TypeError, "^expected level to be a Tensor, but got float$"),
        ({"lr": -1.0}, ValueError, r"^expected lr in \[0, inf\), but got -1.0$"),
        ({"level": lambda _, knobs: knobs["keep"] * math.nan}, ValueError, "^expected level to be finite"),
    ],
)
def test_what_cannot_be_unrolled_is_refused(change, error, text):
    arguments = {"loss": weighted(OBJECTIVE, {RETAIN: "keep"}), "level": LEVEL, "knobs": {"keep": 1.0}, **change}
    loss, level, knobs = (arguments.pop(name) for name in ("loss", "level", "knobs"))
    with pytest.raises(error, match=text):
        unroll(network(), loss, level, knobs, batches(), **arguments)


def test_terms_and_adapters_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"^expected every name in weights to be one of .* but got 'keep'$"):
        weighted(OBJECTIVE, {"keep": "keep"})
    with pytest.raises(ValueError, match=r"^expected model to have low-rank adapters, but got none$"):
        unroll(network(), lambda m, _, k: scale_adapters(m, k["s"]), LEVEL, {"s": 1.0}, batches())
