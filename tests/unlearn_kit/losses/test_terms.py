"""Terms a user writes, terms of the parameters, and what the factories refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor, nn

from unlearn_kit import losses as L

BATCH, CLASSES = 5, 3


def own(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(4, 6, dtype=torch.float64), nn.Tanh(), nn.Linear(6, CLASSES, dtype=torch.float64))
    with torch.no_grad():
        for place, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=own(place), dtype=torch.float64))
    return made


def batch(stream: str = "forget") -> L.Batch:
    x = torch.rand(BATCH, 4, generator=own(7), dtype=torch.float64)
    return L.Batch(x, torch.arange(BATCH) % CLASSES, stream=stream)


def value(term: L.Term, made: nn.Module | None = None) -> float:
    return L.Objective((term,)).evaluate(made or model(), {"forget": batch()}).total.item()


def p() -> np.ndarray:
    with torch.no_grad():
        return softmax(model()(batch().inputs).numpy(), axis=1)


# --- a user's own distance ------------------------------------------------------------------------


@L.term(takes=("probabilities",))
def brier(logits: Tensor, goal: L.Goal) -> Tensor:
    """Squared difference of probabilities."""
    return (logits.softmax(1) - goal.values).square().sum(1)


@L.term
def hinge(logits: Tensor, goal: L.Goal, margin: float = 1.0, *, power: int) -> Tensor:
    own_logit = logits.gather(1, goal.values[:, None])[:, 0]
    return (margin - own_logit).clamp(min=0) ** power


@L.term(reduction="batch")
def spread(logits: Tensor) -> Tensor:
    return logits.var(dim=0).sum()


@L.term
def confidence(logits: Tensor, **unused: float) -> Tensor:
    return logits.softmax(1).amax(1)


@L.term(reduction="forward")
def roughness(forward, batch: L.Batch, *, size: float = 0.1) -> Tensor:
    return (forward(batch.inputs + size) - forward(batch.inputs)).square().sum(1)


def test_a_decorated_function_is_a_distance():
    term = brier(on="forget", to=L.Uniform(CLASSES))
    assert str(term) == "brier(forget -> Uniform(num_classes=3))"
    assert brier.__name__ == "brier"
    assert brier.__doc__ == "Squared difference of probabilities."
    assert value(term) == pytest.approx(((p() - 1 / 3) ** 2).sum(axis=1).mean())


def test_its_options_are_those_after_the_goal():
    with torch.no_grad():
        z = model()(batch().inputs).numpy()
    chosen = z[np.arange(BATCH), np.arange(BATCH) % CLASSES]
    for options, margin, shown in (({}, 1.0, ", power=2"), ({"margin": 2.5}, 2.5, ", power=2, margin=2.5")):
        term = hinge(on="forget", power=2, **options)
        assert str(term) == f"hinge(forget -> Labels{shown})"
        assert value(term) == pytest.approx((np.maximum(margin - chosen, 0) ** 2).mean())


def test_it_may_reduce_the_batch_itself_or_have_no_target():
    assert str(spread(on="forget")) == "spread(forget)"
    with torch.no_grad():
        assert value(spread(on="forget")) == pytest.approx(model()(batch().inputs).numpy().var(axis=0, ddof=1).sum())
    assert value(confidence(on="forget")) == pytest.approx(p().max(axis=1).mean())


def test_it_may_run_the_model_itself():
    assert str(roughness(on="forget", size=0.5)) == "roughness(forget, size=0.5)"
    with torch.no_grad():
        moved, still = (model()(batch().inputs + size).numpy() for size in (0.5, 0.0))
    assert value(roughness(on="forget", size=0.5)) == pytest.approx(((moved - still) ** 2).sum(axis=1).mean())
    made = model()
    (2 * roughness(on="forget") + L.cross_entropy(on="forget")).evaluate(made, {"forget": batch()}).total.backward()
    assert made[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("option", "shown"),
    [(0.123456789, "0.123457"), (3, "3"), (True, "True"), ("soft", "soft"), (None, "None"), ((1, 2), "(1, 2)")],
)
def test_options_of_any_kind_print(option, shown):
    @L.term
    def own_term(logits: Tensor, *, mode: object) -> Tensor:
        assert mode == option
        return logits.sum(1)

    assert str(own_term(on="forget", mode=option)) == f"own_term(forget, mode={shown})"
    value(own_term(on="forget", mode=option))


# --- a user's own target --------------------------------------------------------------------------


@dataclass(frozen=True)
class Mirrored:
    """The last class first."""

    num_classes: int
    gives: ClassVar[tuple[str, ...]] = ("labels",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        return L.Goal("labels", self.num_classes - 1 - batch.targets)


class Nameless:
    gives = ("labels",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        return L.Goal("labels", batch.targets)


def test_a_small_class_is_a_target():
    term = L.cross_entropy(on="forget", to=Mirrored(CLASSES))
    assert str(term) == "cross_entropy(forget -> Mirrored(num_classes=3))"
    wanted = CLASSES - 1 - np.arange(BATCH) % CLASSES
    assert value(term) == pytest.approx(-np.log(p()[np.arange(BATCH), wanted]).mean())
    assert value(L.cross_entropy(on="forget", to=L.Cached(Mirrored(CLASSES)))) == pytest.approx(value(term))


def test_names_hold_no_addresses():
    assert str(L.cross_entropy(on="forget", to=Nameless())) == "cross_entropy(forget -> Nameless)"


# --- of the parameters ----------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_the_norm_is_of_trainable_parameters(power):
    made = model()
    made[0].bias.requires_grad_(False)
    expected = sum((np.abs(q.detach().numpy()) ** power).sum() for q in made.parameters() if q.requires_grad)
    term = L.parameter_norm(power)
    assert str(term) == f"parameter_norm(p={power:g})"
    assert value(term, made) == pytest.approx(expected)
    assert L.Objective((term,)).streams == ()


def test_the_norms_gradient_is_finite_at_zero():
    made = model()
    with torch.no_grad():
        made[0].weight.zero_()
    for power in (1, 1.5, 2):
        made.zero_grad()
        L.Objective((L.parameter_norm(power),)).evaluate(made, {}).total.backward()
        assert torch.equal(made[0].weight.grad, torch.zeros_like(made[0].weight))
        assert torch.isfinite(made[2].weight.grad).all()


def test_the_distance_is_to_where_the_weights_were():
    made = model()
    term = L.weight_distance(made)
    assert str(0.5 * term) == "0.5 * weight_distance"
    assert value(term, made) == 0
    before = [q.detach().clone().numpy() for q in made.parameters()]
    with torch.no_grad():
        for q in made.parameters():
            q *= 1.5
    expected = sum(
        ((q.detach().numpy() - start) ** 2).sum() for q, start in zip(made.parameters(), before, strict=True)
    )
    for _ in range(2):  # The starting weights stay where they are.
        found = L.Objective((term,)).evaluate(made, {}).total
        assert found.item() == pytest.approx(expected)
        made.zero_grad()
        found.backward()
        assert np.allclose(made[0].weight.grad.numpy(), 2 * (made[0].weight.detach().numpy() - before[0]))


def test_the_distance_names_parameters_it_does_not_know():
    term = L.weight_distance(nn.Sequential(nn.Linear(4, 6, dtype=torch.float64)))
    text = (
        r"^expected model of weight_distance to have the trainable parameters, but it lacks \['2.bias', '2.weight'\]$"
    )
    with pytest.raises(ValueError, match=text):
        value(term)
    with pytest.raises(ValueError, match=r"expected the model to have trainable parameters for parameter_norm\(p=1\)"):
        value(L.parameter_norm(), model().requires_grad_(False))


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "error", "text"),
    [
        (
            lambda: hinge(on="forget", powr=2),
            ValueError,
            r"^expected option of hinge to be one of \['margin', 'power'\], but got 'powr'; did you mean 'power'\?$",
        ),
        (
            lambda: hinge(on="forget"),
            TypeError,
            r"^expected hinge to be given its options \['power'\], but got no \['power'\]$",
        ),
        (lambda: brier(on="forget", weight=2), ValueError, r"^expected option of brier to be one of \[\], but got"),
        (
            lambda: spread(on="forget", to=L.Labels()),
            TypeError,
            r"^expected no to=: spread has no target, but got Labels\(\)$",
        ),
        (lambda: roughness(on="forget", to=L.Labels()), TypeError, "^expected no to=: roughness has no target"),
        (
            lambda: brier(on="forget"),
            ValueError,
            r"^expected the target of brier\(forget -> Labels\) to give probabilities, but got Labels\(\), which gives",
        ),
        (
            lambda: L.kl(on="forget", to=L.Uniform(3), temperature=0),
            ValueError,
            r"^expected temperature in \(0, inf\), but got 0$",
        ),
        (
            lambda: L.kl(on="forget", to=L.Uniform(3), temperature="hot"),
            TypeError,
            "^expected temperature to be a number, but got str: 'hot'$",
        ),
        (lambda: L.parameter_norm(0.5), ValueError, r"^expected p in \[1, inf\), but got 0.5$"),
        (lambda: L.cross_entropy(), TypeError, "on"),
        (lambda: L.kl(on="forget"), TypeError, "to"),
    ],
)
def test_mistakes_are_refused_when_the_term_is_made(mistake, error, text):
    with pytest.raises(error, match=text):
        mistake()


@L.term(reduction="forward")
def unevenness(forward, batch, *, shift: float) -> Tensor:
    """How much the outputs change when the inputs are shifted."""
    return (forward(batch.inputs + shift) - forward(batch.inputs)).square().sum(1)


def test_a_forward_term_runs_the_model_on_inputs_of_its_own_making():
    term = unevenness(on="forget", shift=0.5)
    assert str(term) == "unevenness(forget, shift=0.5)"
    assert term.to is None
    x = torch.rand(6, 3)
    seen = []

    def forward(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return inputs**2

    evaluation = L.Objective((2.0 * term,)).evaluate(
        torch.nn.Identity(), {"forget": L.Batch(x, torch.zeros(6))}, forward=forward
    )
    assert len(seen) == 2  # The outputs at the inputs themselves are not computed besides.
    expected = ((x + 0.5) ** 2 - x**2).square().sum(1).mean()
    torch.testing.assert_close(evaluation.parts["unevenness(forget, shift=0.5)"], expected)
    torch.testing.assert_close(evaluation.total, 2 * expected)
    with pytest.raises(TypeError, match=r"expected no to=: unevenness has no target, but got Labels\(\)"):
        unevenness(on="forget", to=L.Labels(), shift=0.5)


@L.term(reduction="forward")
def whole(forward, batch) -> Tensor:
    return forward(batch.inputs).sum()


def test_a_forward_term_returns_one_value_a_sample():
    batch = L.Batch(torch.rand(6, 3), torch.zeros(6))
    with pytest.raises(ValueError, match=r"expected whole\(forget\) to return shape \(6,\), but got \(\)"):
        L.Objective((whole(on="forget"),)).evaluate(torch.nn.Identity(), {"forget": batch})


@L.term
def summed(logits: Tensor) -> Tensor:
    return logits.sum()


@L.term(reduction="batch")
def unsummed(logits: Tensor) -> Tensor:
    return logits.sum(1)


@L.term
def counted(logits: Tensor) -> float:
    return 3.0


@pytest.mark.parametrize(
    ("term", "error", "text"),
    [
        (summed(on="forget"), ValueError, r"^expected summed\(forget\) to return shape \(5,\), but got \(\)$"),
        (unsummed(on="forget"), ValueError, r"^expected unsummed\(forget\) to return shape \(\), but got \(5,\)$"),
        (counted(on="forget"), TypeError, r"^expected counted\(forget\) to return a Tensor, but got float$"),
    ],
)
def test_a_distance_that_returns_something_else_is_refused(term, error, text):
    with pytest.raises(error, match=text):
        value(term)
