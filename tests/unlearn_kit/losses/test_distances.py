"""Distances against scipy and scikit-learn, for every kind of goal and output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_expit, log_softmax, softmax
from scipy.stats import entropy
from sklearn.metrics import log_loss, mean_squared_error
from torch import Tensor

from unlearn_kit.losses import IGNORE, Goal
from unlearn_kit.losses.distances import bce, check_goal, cross_entropy, fit_goal, kl, mse

SHAPES = {"classes": (5, 3), "single": (5, 1), "dense": (2, 4, 3, 2), "dense-single": (2, 1, 3, 2)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_for(shape, seed: int = 1) -> Tensor:
    own = torch.Generator().manual_seed(seed)
    return torch.randint(max(shape[1], 2), (shape[0], *shape[2:]), generator=own)


def both(z: Tensor) -> np.ndarray:
    """Logits of every outcome ``(B, C, decisions)``; a single logit z stands for (0, z)."""
    values = z.detach().double().numpy()
    values = values.reshape(*values.shape[:2], -1)
    return np.concatenate([np.zeros_like(values), values], axis=1) if values.shape[1] == 1 else values


def given_form(p: np.ndarray, shape) -> Tensor:
    """Probabilities of every outcome in the form of the outputs: those of class 1 for a single logit."""
    return torch.tensor(p[:, 1:] if shape[1] == 1 else p).reshape(shape)


def mean(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(axis=1)


# --- the formulas ---------------------------------------------------------------------------------


@shapes
def test_cross_entropy_of_labels(shape):
    z, y = draw(*shape), labels_for(shape)
    expected = mean(-np.take_along_axis(log_softmax(both(z), axis=1), y.numpy().reshape(len(y), 1, -1), axis=1))
    # Labels as indices, with the channel of a mask, and as the float mask of a single logit.
    for wanted in (y, y.unsqueeze(1), *([y.unsqueeze(1).float()] if shape[1] == 1 else [])):
        found = cross_entropy(z, Goal("labels", wanted))
        assert found.shape == (shape[0],)
        assert np.allclose(found.numpy(), expected)


def test_cross_entropy_of_labels_is_scikit_learns():
    z, y = draw(30, 4), labels_for((30, 4))
    found = cross_entropy(z, Goal("labels", y)).mean()
    assert found.item() == pytest.approx(log_loss(y.numpy(), softmax(z.numpy(), axis=1), labels=range(4)))


@shapes
@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_cross_entropy_of_soft_goals(shape, kind):
    z, other = draw(*shape), draw(*shape, seed=2)
    q = softmax(both(other), axis=1)
    goal = Goal("logits", other) if kind == "logits" else Goal("probabilities", given_form(q, shape))
    expected = mean(-(q * log_softmax(both(z), axis=1)).sum(axis=1))
    assert np.allclose(cross_entropy(z, goal).numpy(), expected)


@shapes
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_kl_is_scipys_entropy_times_the_square_of_the_temperature(shape, temperature, kind):
    z, other = draw(*shape), draw(*shape, seed=2)
    goal = Goal("logits", other)
    if kind == "probabilities":
        goal = Goal("probabilities", given_form(softmax(both(other), axis=1), shape))
    q, p = (softmax(both(values) / temperature, axis=1) for values in (other, z))
    expected = temperature**2 * mean(entropy(q, p, axis=1))
    assert np.allclose(kl(z, goal, temperature=temperature).numpy(), expected)


@shapes
def test_kl_to_itself_is_zero_and_else_positive(shape):
    z = draw(*shape)
    assert torch.allclose(kl(z, Goal("logits", z), temperature=3.0), torch.zeros(shape[0]).double(), atol=1e-12)
    assert (kl(z, Goal("logits", draw(*shape, seed=5)), temperature=3.0) > 0).all()


@shapes
def test_mse_is_scikit_learns(shape):
    z, other = draw(*shape), draw(*shape, seed=2)
    expected = [mean_squared_error(a.flatten(), b.flatten()) for a, b in zip(z.numpy(), other.numpy(), strict=True)]
    assert np.allclose(mse(z, Goal("logits", other)).numpy(), expected)


@shapes
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_bce_takes_every_output_by_itself(shape, kind):
    z, y = draw(*shape), labels_for(shape)
    if kind == "labels":
        goal = Goal("labels", y)
        wanted = y.numpy()[:, None] if shape[1] == 1 else np.moveaxis(np.eye(shape[1])[y.numpy()], -1, 1)
    else:
        wanted = expit(draw(*shape, seed=2).numpy())
        goal = Goal("probabilities", torch.tensor(wanted))
    values = z.numpy()
    expected = mean(-(wanted * log_expit(values) + (1 - wanted) * log_expit(-values)))
    assert np.allclose(bce(z, goal).numpy(), expected)


@pytest.mark.parametrize("rest", [(), (3, 2)], ids=["classes", "dense"])
def test_a_single_logit_is_two_of_which_one_is_zero(rest):
    z = draw(4, 1, *rest)
    pair = torch.cat([torch.zeros_like(z), z], dim=1)
    y = labels_for((4, 2, *rest))
    p = torch.rand(4, 1, *rest, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    other = draw(4, 1, *rest, seed=4)
    goals = [
        (Goal("labels", y), Goal("labels", y)),
        (Goal("probabilities", p), Goal("probabilities", torch.cat([1 - p, p], dim=1))),
        (Goal("logits", other), Goal("logits", torch.cat([torch.zeros_like(other), other], dim=1))),
    ]
    for one, two in goals:
        assert torch.allclose(cross_entropy(z, one), cross_entropy(pair, two))
        if one.kind != "labels":
            assert torch.allclose(kl(z, one, temperature=2.0), kl(pair, two, temperature=2.0))
        if one.kind != "logits":
            assert torch.allclose(bce(z, one), cross_entropy(pair, two))


@given(batch=st.integers(1, 5), seed=st.integers(0, 99), size=st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_samples_do_not_see_each_other(batch, seed, size):
    z, other, y = draw(batch, 3, 2, seed=seed), draw(batch, 3, 2, seed=seed + 1), labels_for((batch, 3, 2), seed)
    for distance, goal in (
        (cross_entropy, Goal("labels", y)),
        (cross_entropy, Goal("logits", other)),
        (kl, Goal("logits", other)),
        (mse, Goal("logits", other)),
        (bce, Goal("labels", y)),
    ):
        parts = [distance(a, Goal(goal.kind, b)) for a, b in zip(z.split(size), goal.values.split(size), strict=True)]
        assert torch.allclose(torch.cat(parts), distance(z, goal))


# --- decisions that are left out ------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("distance", [cross_entropy, bce])
def test_ignored_labels_count_for_nothing(shape, distance):
    z, y = draw(*shape).requires_grad_(True), labels_for(shape)
    out = torch.rand(y.shape, generator=torch.Generator().manual_seed(4)) < 0.4
    out[0] = True  # One sample is left out as a whole.
    wanted = torch.where(out, IGNORE, y)
    found = distance(z, Goal("labels", wanted.unsqueeze(1).double() if shape[1] == 1 else wanted))
    every = distance(z.movedim(1, -1).reshape(-1, shape[1]), Goal("labels", y.flatten())).reshape(len(y), -1)
    for sample, kept in enumerate(~out.reshape(len(out), -1)):
        expected = every[sample][kept].mean() if kept.any() else torch.zeros(()).double()
        assert torch.allclose(found[sample], expected)
    found.sum().backward()
    assert (z.grad.movedim(1, -1)[out] == 0).all()
    assert (z.grad.movedim(1, -1)[~out] != 0).all()


@shapes
@pytest.mark.parametrize("distance", [cross_entropy, bce, kl, lambda z, goal: kl(z, goal, temperature=4.0)])
def test_ignored_probabilities_count_for_nothing(shape, distance):
    z = draw(*shape).requires_grad_(True)
    q = given_form(softmax(both(draw(*shape, seed=2)), axis=1), shape)
    out = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(4)) < 0.4
    out[0] = True
    found = distance(z, Goal("probabilities", torch.where(out.unsqueeze(1), IGNORE, q)))

    def flat(values: Tensor) -> Tensor:
        return values.movedim(1, -1).reshape(-1, shape[1])

    every = distance(flat(z), Goal("probabilities", flat(q))).reshape(len(z), -1)
    for sample, kept in enumerate(~out.reshape(len(out), -1)):
        expected = every[sample][kept].mean() if kept.any() else torch.zeros(()).double()
        assert torch.allclose(found[sample], expected)
    found.sum().backward()
    assert (z.grad.movedim(1, -1)[out] == 0).all()
    assert torch.isfinite(z.grad).all()


# --- extremes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_without_probability_cost_nothing(temperature, dtype):
    q = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    z = torch.tensor([[0.0, 0.0, -500.0], [1.0, 2.0, 3.0]], dtype=dtype, requires_grad=True)
    found = kl(z, Goal("probabilities", q), temperature=temperature)
    p = softmax(z.detach().double().numpy() / temperature, axis=1)
    powered = q.double().numpy() ** (1 / temperature)
    expected = temperature**2 * entropy(powered / powered.sum(axis=1, keepdims=True), p, axis=1)
    assert np.allclose(found.detach().numpy(), expected, atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize(
    ("distance", "kind"),
    [
        (cross_entropy, "labels"),
        (cross_entropy, "probabilities"),
        (cross_entropy, "logits"),
        (bce, "labels"),
        (bce, "probabilities"),
        (kl, "probabilities"),
        (kl, "logits"),
        (mse, "logits"),
    ],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_saturated_logits_keep_values_and_gradients_finite(distance, kind, outputs):
    extremes = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, 1e4]])[:, :outputs]
    z = extremes.clone().requires_grad_(True)
    goal = {
        "labels": Goal("labels", torch.ones(3, dtype=torch.int64)),
        "probabilities": Goal("probabilities", torch.eye(3)[[1, 0, 1]][:, :outputs]),
        "logits": Goal("logits", extremes.roll(1, 0)),
    }[kind]
    value = distance(z, goal)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(z.grad).all()
    assert (value > 1).any()
    assert (z.grad != 0).any()


# --- goals that do not fit ------------------------------------------------------------------------


def test_two_outcomes_probabilities_lead_a_single_logit_by_the_second():
    p = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    fitted = fit_goal(Goal("probabilities", p), torch.zeros(2, 1))
    assert torch.equal(fitted.values, torch.tensor([[0.8], [0.4]]))
    dense = fit_goal(Goal("probabilities", torch.rand(2, 2, 3, 3)), torch.zeros(2, 1, 3, 3))
    assert dense.values.shape == (2, 1, 3, 3)
    for goal, logits in (
        (Goal("probabilities", p), torch.zeros(2, 2)),
        (Goal("labels", p), torch.zeros(2, 1)),
        (Goal("logits", p), torch.zeros(2, 1)),
    ):
        assert fit_goal(goal, logits) is goal


@pytest.mark.parametrize(
    ("goal", "logits", "error", "text"),
    [
        (
            Goal("logits", torch.zeros(2, 3)),
            torch.zeros(2, 3),
            ValueError,
            "^expected the target of bce to give labels or probabilities, but got logits from T$",
        ),
        (
            Goal("labels", torch.zeros(3).long()),
            torch.zeros(2, 3),
            ValueError,
            r"^expected T to give one label a decision of outputs \(2, 3\), but got shape \(3,\)$",
        ),
        (
            Goal("labels", torch.zeros(2).long()),
            torch.zeros(2, 3, 4, 4),
            ValueError,
            r"^expected T to give one label a decision of outputs \(2, 3, 4, 4\), but got shape \(2,\)$",
        ),
        (
            Goal("labels", torch.zeros(4, 2).long()),
            torch.zeros(2, 3, 4),
            ValueError,
            r"one label a decision of outputs \(2, 3, 4\), but got shape \(4, 2\)",
        ),
        (
            Goal("labels", torch.zeros(2)),
            torch.zeros(2, 3),
            TypeError,
            "^expected T to give integer labels, but got torch.float32$",
        ),
        (
            Goal("labels", torch.tensor([0, 3])),
            torch.zeros(2, 3),
            ValueError,
            r"^expected labels from T in \[0, 2\] \(the model has 3 outputs\), but got 0 to 3$",
        ),
        (
            Goal("labels", torch.tensor([-2, 1])),
            torch.zeros(2, 1),
            ValueError,
            r"^expected labels from T in \[0, 1\] \(the model has 1 outputs\), but got -2 to 1$",
        ),
        (
            Goal("probabilities", torch.zeros(2, 4)),
            torch.zeros(2, 3),
            ValueError,
            r"^expected T to give probabilities of the outputs' shape \(2, 3\), but got \(2, 4\)$",
        ),
        (
            Goal("probabilities", torch.tensor([[3.0, -4.0, 1.0]])),
            torch.zeros(1, 3),
            ValueError,
            r"^expected probabilities from T in \[0, 1\], but got -4 to 3$",
        ),
        (
            Goal("probabilities", torch.tensor([[0.5, -0.5, IGNORE]])),
            torch.zeros(1, 3),
            ValueError,
            r"^expected probabilities from T in \[0, 1\], but got -1 to 0.5$",
        ),
    ],
)
def test_goals_that_do_not_fit_are_refused(goal, logits, error, text):
    with pytest.raises(error, match=text):
        check_goal("bce", ("labels", "probabilities"), goal, logits, "T")


@pytest.mark.parametrize(
    ("goal", "logits"),
    [
        (Goal("labels", torch.tensor([IGNORE, 2])), torch.zeros(2, 3)),
        (Goal("labels", torch.tensor([[0.0], [1.0]])), torch.zeros(2, 1)),
        (Goal("labels", torch.zeros(2, 1, 4, 4).long()), torch.zeros(2, 3, 4, 4)),
        (Goal("probabilities", torch.tensor([[1 + 1e-7, -1e-7], [IGNORE, IGNORE]])), torch.zeros(2, 2)),
    ],
)
def test_goals_that_fit_pass(goal, logits):
    check_goal("bce", ("labels", "probabilities"), goal, logits, "T")
