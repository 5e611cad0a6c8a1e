"""The algebra: laws it obeys, work it saves, formulas it prints, mistakes it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.schedules import value_at

BATCH, CLASSES = 5, 3
STREAMS = ("forget", "retain", "public")


def own(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(device: str = "cpu") -> nn.Linear:
    made = nn.Linear(4, CLASSES, dtype=torch.float64, device=device)
    if device == "cpu":
        with torch.no_grad():
            made.weight.copy_(torch.randn(CLASSES, 4, generator=own(0), dtype=torch.float64))
            made.bias.copy_(torch.randn(CLASSES, generator=own(1), dtype=torch.float64))
    return made


def batches(*streams: str) -> dict[str, L.Batch]:
    return {
        name: L.Batch(
            torch.rand(BATCH, 4, generator=own(place + 2), dtype=torch.float64),
            torch.randint(CLASSES, (BATCH,), generator=own(place + 9)),
            stream=name,
        )
        for place, name in enumerate(streams or STREAMS)
    }


@dataclass(frozen=True)
class Counting:
    """A target that notes every call; equal to every other of its name."""

    name: str = "a"
    calls: list[str] = field(default_factory=list, compare=False, hash=False, repr=False)
    gives: ClassVar[tuple[str, ...]] = ("labels",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        self.calls.append(batch.stream)
        return L.Goal("labels", batch.targets)


def ramp(share: float) -> float:
    return 1 - 2 * share


plain = st.sampled_from(STREAMS).flatmap(
    lambda on: st.sampled_from(
        [
            L.cross_entropy(on=on),
            L.bce(on=on),
            L.mse(on=on, to=L.Teacher(SURE)),
            L.kl(on=on, to=L.Uniform(CLASSES), temperature=2.0),
        ]
    )
)
SURE = model()
weights = st.one_of(
    st.floats(-5, 5),
    st.builds(L.linear, st.floats(-3, 3), st.floats(-3, 3)),
    st.builds(L.every, st.integers(1, 3)),
    st.just(ramp),
)
sums = st.lists(st.tuples(weights, plain), min_size=1, max_size=4, unique_by=lambda pair: pair[1].name)
places = st.integers(1, 6).flatmap(lambda total: st.tuples(st.integers(0, total - 1), st.just(total)))
laws = settings(deadline=None, max_examples=30)


def build(parts) -> L.Objective:
    return sum(weight * term for weight, term in parts)


def total(objective, place=(0, 1)) -> float:
    return L.Objective(objective._terms).evaluate(model(), batches(), step=place[0], total=place[1]).total.item()


# --- laws -----------------------------------------------------------------------------------------


@given(parts=sums, place=places)
@laws
def test_an_objective_is_the_weighted_sum_of_its_terms(parts, place):
    expected = sum(value_at(weight, *place) * total(term) for weight, term in parts)
    assert total(build(parts), place) == pytest.approx(expected, abs=1e-9)


@given(parts=sums, weight=weights, place=places)
@laws
def test_a_weight_distributes_over_a_sum(parts, weight, place):
    whole, spread = weight * build(parts), sum(weight * (w * term) for w, term in parts)
    assert total(whole, place) == pytest.approx(total(spread, place), abs=1e-9)
    assert total(whole, place) == pytest.approx(value_at(weight, *place) * total(build(parts), place), abs=1e-9)
    assert whole == spread == build(parts) * weight
    assert str(whole) == str(spread)


@given(parts=sums, place=places, data=st.data())
@laws
def test_order_does_not_matter(parts, place, data):
    shuffled = data.draw(st.permutations(parts))
    assert total(build(shuffled), place) == pytest.approx(total(build(parts), place), abs=1e-9)
    cut = data.draw(st.integers(0, len(parts)))
    apart = build(parts[:cut]) + build(parts[cut:]) if 0 < cut < len(parts) else build(parts)
    assert apart == build(parts)


@given(parts=sums, place=places)
@laws
def test_negation_and_subtraction(parts, place):
    objective = build(parts)
    assert total(-objective, place) == pytest.approx(-total(objective, place), abs=1e-9)
    assert total(-1 * -objective, place) == pytest.approx(total(objective, place), abs=1e-9)
    term = L.cross_entropy(on="public", name="other")
    assert total(objective - term, place) == pytest.approx(total(objective, place) - total(term), abs=1e-9)
    assert total(term - objective, place) == pytest.approx(total(term) - total(objective, place), abs=1e-9)
    assert objective - term == objective + -term


@given(first=weights, second=weights, place=places)
@laws
def test_weights_multiply(first, second, place):
    term = L.cross_entropy(on="forget")
    expected = value_at(first, *place) * value_at(second, *place) * total(term)
    assert total(first * (second * term), place) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weight", [np.float64(0.5), np.float32(0.5), 0.5])
def test_numbers_of_numpy_are_weights(weight):
    term = L.cross_entropy(on="forget")
    assert term * weight == 0.5 * term
    assert isinstance(term * weight, L.Term)


def test_terms_and_objectives_do_not_change():
    term = L.cross_entropy(on="forget")
    objective = term + L.cross_entropy(on="retain")
    before = str(term), str(objective)
    _ = 3 * term, -objective, objective - L.bce(on="public"), ramp * objective
    assert (str(term), str(objective)) == before


# --- what is computed -----------------------------------------------------------------------------


def test_parts_are_named_and_without_their_weights():
    objective = 3 * L.cross_entropy(on="forget", name="erase") - 0.5 * L.bce(on="retain")
    found = objective.evaluate(model(), batches())
    assert list(found.parts) == ["erase", "bce(retain -> Labels)"]
    assert found.parts["erase"].item() == pytest.approx(total(L.cross_entropy(on="forget")))
    assert found.total.item() == pytest.approx(3 * found.parts["erase"].item() - 0.5 * total(L.bce(on="retain")))


def test_the_gradient_is_that_of_the_total():
    objective = 2 * L.cross_entropy(on="forget") - L.mse(on="retain", to=L.Teacher(model()))
    first, second = model(), model()
    with torch.no_grad():
        for made in (first, second):
            made.weight *= 2
    objective.evaluate(first, batches()).total.backward()
    given_batches = batches()
    forget, retain = given_batches["forget"], given_batches["retain"]
    by_hand = 2 * nn.functional.cross_entropy(second(forget.inputs), forget.targets)
    by_hand = by_hand - (second(retain.inputs) - model()(retain.inputs).detach()).square().mean()
    by_hand.backward()
    assert torch.allclose(first.weight.grad, second.weight.grad)


def test_streams_are_forwarded_and_targets_asked_once():
    shared, other = Counting(), Counting("b")
    objective = (
        L.cross_entropy(on="forget", to=shared)
        + L.bce(on="forget", to=Counting("a", shared.calls))
        + L.cross_entropy(on="retain", to=shared)
        + L.cross_entropy(on="forget", to=other, name="third")
    )
    forwarded = []
    made = model()

    def forward(inputs: Tensor) -> Tensor:
        forwarded.append(inputs)
        return made(inputs)

    given_batches = batches()
    objective.evaluate(made, given_batches, forward=forward)
    assert shared.calls == ["forget", "retain"]
    assert other.calls == ["forget"]
    assert [id(x) for x in forwarded] == [id(given_batches[name].inputs) for name in ("forget", "retain")]


def test_terms_of_weight_zero_are_not_computed():
    resting, at_work = Counting(), Counting("b")
    forwarded = []
    made = model()

    def forward(inputs: Tensor) -> Tensor:
        forwarded.append(inputs)
        return made(inputs)

    objective = L.every(2) * L.cross_entropy(on="forget", to=resting) + L.cross_entropy(on="retain", to=at_work)
    found = objective.evaluate(made, batches("retain"), step=0, total=4, forward=forward)
    assert (resting.calls, at_work.calls, len(forwarded)) == ([], ["retain"], 1)
    assert list(found.parts) == ["cross_entropy(retain -> Counting(name='b'))"]
    found = objective.evaluate(made, batches(), step=1, total=4, forward=forward)
    assert (resting.calls, at_work.calls, len(forwarded)) == (["forget"], ["retain", "retain"], 3)
    assert len(found.parts) == 2


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_when_every_term_rests_the_total_is_zero_where_the_model_is(device):
    objective = 0 * L.cross_entropy(on="forget") + L.linear(0, 1) * L.cross_entropy(on="retain")
    found = objective.evaluate(model(device), {}, step=0, total=5)
    assert found.parts == {}
    assert not found.total.requires_grad
    assert (found.total.device.type, found.total.shape) == (device, ())
    assert device == "meta" or found.total.item() == 0


def test_a_target_gives_no_gradient_back():
    leak = torch.zeros(BATCH, CLASSES, dtype=torch.float64, requires_grad=True)

    @dataclass(frozen=True)
    class Leaking:
        gives: ClassVar[tuple[str, ...]] = ("logits",)

        def __call__(self, batch: L.Batch) -> L.Goal:
            return L.Goal("logits", 2 * leak)

    L.Objective((L.mse(on="forget", to=Leaking()),)).evaluate(model(), batches()).total.backward()
    assert leak.grad is None


def test_it_says_what_it_reads():
    teacher = L.Teacher(SURE)
    cached = L.Cached(teacher)
    objective = (
        L.cross_entropy(on="retain")
        + L.kl(on="forget", to=teacher)
        + L.mse(on="retain", to=cached)
        + L.bce(on="retain")
        + L.parameter_norm()
    )
    assert objective.streams == ("retain", "forget")
    assert objective.targets() == (L.Labels(), teacher, cached)
    assert objective.targets("retain") == (L.Labels(), cached)
    assert objective.targets("public") == ()
    assert objective.cached_targets("retain") == (cached,)
    assert objective.cached_targets("forget") == ()
    objective.check(["forget", "retain", "public"])
    with pytest.raises(
        ValueError,
        match=r"^expected the stream of kl\(forget -> .*\) to be one of \['retain'\], but got 'forget'$",
    ):
        objective.check(["retain"])


# --- formulas -------------------------------------------------------------------------------------

F, R = L.cross_entropy(on="forget"), L.bce(on="retain")
CE, BCE = "cross_entropy(forget -> Labels)", "bce(retain -> Labels)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (F, CE),
        (F + R, f"{CE} + {BCE}"),
        (F - R, f"{CE} - {BCE}"),
        (-F + R, f"-{CE} + {BCE}"),
        (-(F + R), f"-{CE} - {BCE}"),
        (-(F - R), f"-{CE} + {BCE}"),
        (F - 0.5 * R, f"{CE} - 0.5 * {BCE}"),
        (2 * (F + 0.25 * R), f"2 * {CE} + 0.5 * {BCE}"),
        (1 * F + 1.0 * R, f"{CE} + {BCE}"),
        (0 * F, f"0 * {CE}"),
        (1e-5 * F, f"1e-05 * {CE}"),
        (L.linear(3.0, 1.0) * F, f"linear(3, 1) * {CE}"),
        (-2 * (L.cosine(1, 0) * F), f"-2 * cosine(1, 0) * {CE}"),
        (F - L.every(3) * R, f"{CE} - every(3) * {BCE}"),
        (L.inverse(1) * (L.every(3) * F), f"every(3) * inverse(1) * {CE}"),
        (ramp * F, f"ramp * {CE}"),
        ((lambda share: share) * F, f"f(progress) * {CE}"),
        (L.cross_entropy(on="forget", name="erase") + R, f"erase + {BCE}"),
        (L.kl(on="a", to=L.Uniform(3)), "kl(a -> Uniform(num_classes=3))"),
        (L.kl(on="a", to=L.Teacher(SURE), temperature=2), "kl(a -> Teacher(Linear), temperature=2)"),
        (sum([F, R]), f"{CE} + {BCE}"),
        (sum([F]), CE),
    ],
)
def test_formulas_print(value, text):
    assert str(value) == text


# --- mistakes -------------------------------------------------------------------------------------


class Bare:
    """Hashable, but without what a target needs."""


@dataclass
class Unhashable:
    gives: ClassVar[tuple[str, ...]] = ("labels",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        return L.Goal("labels", batch.targets)


@pytest.mark.parametrize(
    ("mistake", "error", "text"),
    [
        (
            lambda: F + R + L.cross_entropy(on="forget"),
            ValueError,
            r"^expected terms with distinct names, but got \['cross_entropy\(.*\)'\] twice; give one a name=$",
        ),
        (lambda: F + 3, TypeError, "unsupported operand"),
        (lambda: F - 3, TypeError, "unsupported operand"),
        (lambda: F * R, TypeError, "unsupported operand"),
        (lambda: (F + R) * F, TypeError, "unsupported operand"),
        (lambda: F * torch.ones(()), TypeError, "unsupported operand"),
        (lambda: F * "2", TypeError, "^expected weight to be a number, but got str: '2'$"),
        (lambda: F * True, TypeError, "^expected weight to be a number, but got bool: True$"),
        (lambda: float("nan") * F, ValueError, r"^expected weight in \(-inf, inf\), but got nan$"),
        (lambda: (F + R) * None, TypeError, "^expected weight to be a number, but got NoneType"),
        (lambda: L.Objective((F, "x")), TypeError, "^expected terms\\[1\\] to be a Term, but got str$"),
        (
            lambda: L.cross_entropy(on="forget", to=SURE),
            TypeError,
            r"^expected to= of cross_entropy\(forget -> Linear.* to be a target .*, but got Linear$",
        ),
        (
            lambda: L.cross_entropy(on="forget", to=Bare()),
            TypeError,
            r"^expected to= of cross_entropy\(forget -> Bare\) to be a target \(a hashable object with .gives and "
            r"__call__\(batch\)\), but got Bare$",
        ),
        (lambda: L.cross_entropy(on="forget", to=Unhashable()), TypeError, "a hashable object .*, but got Unhashable$"),
        (lambda: L.cross_entropy(on="forget", to=L.Background), TypeError, "but got the class Background$"),
        (
            lambda: L.mse(on="retain"),
            ValueError,
            r"^expected the target of mse\(retain -> Labels\) to give logits, but got Labels\(\), which gives labels$",
        ),
        (
            lambda: L.kl(on="retain", to=L.Boundary(SURE, PerturbedSign(0.1))),
            ValueError,
            r"to give probabilities or logits, but got Boundary\(radius=0.1, steps=1\), which gives labels$",
        ),
        (
            lambda: L.bce(on="retain", to=L.Teacher(SURE)),
            ValueError,
            "to give labels or probabilities, but got Teacher",
        ),
        (
            lambda: L.Term("x", lambda z: z, "forget", None, reduction="mean"),
            ValueError,
            r"^expected reduction to be one of \['sample', 'batch', 'parameters', .*\], but got 'mean'$",
        ),
    ],
)
def test_mistakes_are_refused_when_they_are_written(mistake, error, text):
    with pytest.raises(error, match=text):
        mistake()


def giving(kind: str, values: Tensor):
    @dataclass(frozen=True)
    class Giving:
        gives: ClassVar[tuple[str, ...]] = ("labels", "probabilities", "logits")

        def __call__(self, batch: L.Batch) -> L.Goal:
            return L.Goal(kind, values)

        def __repr__(self) -> str:
            return "Giving"

    return Giving()


@dataclass(frozen=True)
class Raw:
    gives: ClassVar[tuple[str, ...]] = ("labels",)

    def __call__(self, batch: L.Batch) -> Tensor:
        return batch.targets


@pytest.mark.parametrize(
    ("term", "error", "text"),
    [
        (
            L.mse(on="forget", to=giving("logits", torch.full((BATCH, CLASSES), float("nan")))),
            ValueError,
            "^expected what Giving gives on stream 'forget' to be finite, but got 15 NaN or infinite of 15 values$",
        ),
        (
            L.cross_entropy(on="forget", to=giving("probabilities", torch.full((BATCH, CLASSES), 7.0))),
            ValueError,
            r"^expected probabilities from Giving in \[0, 1\], but got 7 to 7$",
        ),
        (
            L.cross_entropy(on="forget", to=giving("labels", torch.full((BATCH,), 3))),
            ValueError,
            r"^expected labels from Giving in \[0, 2\] \(the model has 3 outputs\), but got 3 to 3$",
        ),
        (
            L.mse(on="forget", to=giving("labels", torch.zeros(BATCH).long())),
            ValueError,
            r"^expected the target of mse\(forget -> Giving\) to give logits, but got labels from Giving$",
        ),
        (
            L.kl(on="forget", to=L.Uniform(CLASSES + 1)),
            ValueError,
            r"^expected Uniform\(.*\) to give probabilities of the outputs' shape \(5, 3\), but got \(5, 4\)$",
        ),
        (
            L.cross_entropy(on="forget", to=Raw()),
            TypeError,
            r"^expected Raw\(\) to return a Goal, but got Tensor$",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused_with_the_first_batch(term, error, text):
    with pytest.raises(error, match=text):
        L.Objective((term,)).evaluate(model(), batches())


def test_a_missing_batch_is_named():
    with pytest.raises(ValueError, match=r"expected the stream of .* to be one of \['retain'\], but got 'forget'"):
        (F + R).evaluate(model(), batches("retain"))
