"""What each target asks for, against numpy, and that models asked for it do not change."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from torch import Tensor, nn

from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign

BATCH = 6
SEARCH = PerturbedSign(radius=0.3, steps=3, noise=0.1)


def own(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def teacher(outputs: int = 4, dense: bool = False) -> nn.Sequential:
    """A sure network with what must not move: batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Tanh(), nn.Dropout(0.5)]
        head = [nn.Conv2d(5, outputs, 1)] if dense else [nn.Flatten(), nn.Linear(5 * 16, outputs)]
        model = nn.Sequential(*body, *head)
    with torch.no_grad():
        model[-1].weight *= 6
    return model


def batch(targets: Tensor | None = None, **options) -> L.Batch:
    x = torch.rand(BATCH, 1, 4, 4, generator=own(0))
    y = torch.arange(BATCH) % 4 if targets is None else targets
    return L.Batch(x, y, generator=own(7), **options)


def logits_of(model: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(inputs).double().numpy()


# --- labels, teacher ------------------------------------------------------------------------------


def test_labels_are_the_data_own():
    given_batch = batch()
    kind, values = L.Labels()(given_batch)
    assert kind == "labels"
    assert values is given_batch.targets


@pytest.mark.parametrize("make", [L.Teacher, lambda m: L.Boundary(m, SEARCH), L.Contradiction])
def test_a_model_that_is_asked_does_not_change_and_gives_no_gradient(make):
    model = teacher().train()
    before = copy.deepcopy(model.state_dict())
    goal = make(model)(batch())
    assert not goal.values.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_teacher_gives_its_logits_in_eval_mode():
    model = teacher().train()
    kind, values = L.Teacher(model)(batch())
    assert kind == "logits"
    assert np.allclose(values.numpy(), logits_of(model, batch().inputs), atol=1e-6)


def test_learning_from_a_teacher_leaves_the_teacher():
    model, student = teacher(), teacher()
    with torch.no_grad():
        student[-1].weight *= -1
    before = copy.deepcopy(model.state_dict())
    objective = L.Objective((L.kl(on="forget", to=L.Teacher(model), temperature=2.0),))
    values = []
    for _ in range(5):
        student.zero_grad()
        total = objective.evaluate(student, {"forget": batch()}).total
        total.backward()
        with torch.no_grad():
            for parameter in student.parameters():
                parameter -= 0.1 * parameter.grad
        values.append(total.item())
    assert values[-1] < values[0]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# --- boundary -------------------------------------------------------------------------------------


def found(model: nn.Module, given_batch: L.Batch):
    return SEARCH.search(model, given_batch.inputs, given_batch.targets, generator=own(7))


def test_hard_boundary_labels_are_those_of_the_search():
    model = teacher()
    kind, values = L.Boundary(model, SEARCH)(batch())
    assert kind == "labels"
    assert torch.equal(values, found(model, batch()).labels)


def topped(p: np.ndarray, k: int) -> np.ndarray:
    kept = np.where(p.shape[1] - 1 - p.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") < k, p, 0)
    return kept / kept.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("soft", "top_k", "mix"),
    [
        (True, None, 1.0),
        (True, 1, 1.0),
        (True, 2, 1.0),
        (True, 9, 1.0),
        (True, 2, 0.3),
        (True, None, 0.3),
        (False, None, 0.3),
        (False, None, 0.0),
    ],
)
def test_boundary_predictions_are_softened_cut_and_mixed(dense, soft, top_k, mix):
    model = teacher(dense=dense)
    y = torch.randint(4, (BATCH, 4, 4), generator=own(3)) if dense else None
    given_batch = batch(y)
    target = L.Boundary(model, SEARCH, soft=soft, top_k=top_k, mix=mix)
    goal = target(given_batch)
    points = found(model, given_batch)
    there = softmax(points.logits.double().numpy(), axis=1)
    if soft and top_k is not None:
        there = topped(there, min(top_k, 4))
    if not soft:
        there = np.moveaxis(np.eye(4)[points.labels.numpy()], -1, 1)
    here = softmax(logits_of(model, given_batch.inputs), axis=1)
    assert goal.kind == "probabilities"
    assert np.allclose(goal.values.numpy(), mix * there + (1 - mix) * here, atol=1e-5)
    assert np.allclose(goal.values.sum(dim=1).numpy(), 1, atol=1e-5)


def test_the_top_k_are_k_even_when_equal():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    goal = L.Boundary(model, SEARCH, soft=True, top_k=2)(batch())
    assert (goal.values > 0).sum(dim=1).tolist() == [2] * BATCH
    assert set(goal.values.unique().tolist()) == {0.0, 0.5}


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("mix", [1.0, 0.4])
def test_boundaries_of_a_single_logit(dense, mix):
    model = teacher(1, dense)
    shape = (BATCH, 1, 4, 4) if dense else (BATCH,)
    y = torch.randint(2, shape, generator=own(3))
    y = y.float() if dense else y
    points = found(model, batch(y))
    here = expit(logits_of(model, batch().inputs))
    soft = L.Boundary(model, SEARCH, soft=True, top_k=1, mix=mix)(batch(y))
    assert np.allclose(soft.values.numpy(), mix * expit(points.logits.double().numpy()) + (1 - mix) * here, atol=1e-5)
    hard = L.Boundary(model, SEARCH, mix=mix)(batch(y))
    labels = points.labels.numpy()
    expected = labels if mix == 1 else mix * labels.reshape(here.shape) + (1 - mix) * here
    assert np.allclose(hard.values.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("dense", [False, True])
def test_what_does_not_cross_may_get_the_runner_up(outputs, dense):
    model = teacher(outputs, dense)
    search = PerturbedSign(radius=0.02)
    shape = (BATCH, 4, 4) if dense else (BATCH,)
    y = torch.randint(max(outputs, 2), shape, generator=own(3))
    points = search.search(model, batch().inputs, y)
    z = points.logits.double().numpy()
    pair = np.concatenate([np.zeros_like(z), z], axis=1) if outputs == 1 else z
    uncrossed = points.labels.numpy() == y.numpy()
    assert 0 < uncrossed.mean() < 1
    runner_up = np.take(pair.argsort(axis=1), -2, axis=1)
    expected = np.where(uncrossed, runner_up, points.labels.numpy())
    hard = L.Boundary(model, search, uncrossed="runner-up")(batch(y))
    assert np.array_equal(hard.values.numpy(), expected)
    soft = L.Boundary(model, search, soft=True, uncrossed="runner-up")(batch(y)).values.double().numpy()
    if outputs == 1:
        assert np.allclose(soft[:, 0], expit(np.where(uncrossed, -z[:, 0], z[:, 0])), atol=1e-5)
    else:
        own_class = np.moveaxis(np.eye(outputs, dtype=bool)[y.numpy()], -1, 1) & uncrossed[:, None]
        assert np.allclose(soft, softmax(np.where(own_class, -np.inf, z), axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "gives"),
    [
        ({}, ("labels",)),
        ({"soft": True}, ("probabilities",)),
        ({"mix": 0.5}, ("probabilities",)),
    ],
)
def test_a_boundary_says_what_it_gives(options, gives):
    target = L.Boundary(teacher(), SEARCH, **options)
    assert target.gives == gives
    assert target(batch()).kind == gives[0]


# --- uniform, random, background ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "logits"),
    [
        (torch.zeros(BATCH).long(), torch.zeros(BATCH, 4)),
        (torch.zeros(BATCH, 4, 4).long(), torch.zeros(BATCH, 4, 4, 4)),
        (torch.zeros(BATCH, 1, 4, 4).long(), torch.zeros(BATCH, 4, 4, 4)),
        (torch.zeros(BATCH).long(), torch.zeros(BATCH, 1)),
        (torch.zeros(BATCH, 1), torch.zeros(BATCH, 1)),
        (torch.zeros(BATCH, 1, 4, 4), torch.zeros(BATCH, 1, 4, 4)),
        (torch.zeros(BATCH, 4, 4), torch.zeros(BATCH, 1, 4, 4)),
        (torch.zeros(BATCH, 1, 4, 4), torch.zeros(BATCH, 2, 4, 4)),
        (torch.zeros(BATCH, 4, 4).long(), torch.zeros(BATCH, 2, 4, 4)),
    ],
)
def test_uniform_fits_outputs_of_every_form(targets, logits):
    classes = max(logits.shape[1], 2)
    goal = L.Uniform(classes)(batch(targets))
    assert torch.equal(goal.values.unique(), torch.tensor([1 / classes]))
    for term in (L.kl, L.cross_entropy, L.bce):
        objective = L.Objective((term(on="forget", to=L.Uniform(classes)),))
        value = objective.evaluate(nn.Identity(), {"forget": batch(targets)}, forward=lambda _: logits).total
        # Equal logits are as uncertain as outputs can be.
        expected = {L.kl: 0.0, L.cross_entropy: np.log(classes), L.bce: np.log(2)}[term]
        assert value.item() == pytest.approx(expected, abs=1e-6)


@given(classes=st.integers(2, 6), wrong_only=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_random_labels_are_drawn_evenly(classes, wrong_only, seed):
    count = 3000
    y = torch.arange(count) % classes
    drawn = L.RandomLabels(classes, wrong_only)(L.Batch(torch.zeros(count, 1), y, generator=own(seed))).values
    assert drawn.dtype == torch.int64
    allowed = classes - wrong_only
    for label in range(classes):
        counts = np.bincount(drawn[y == label], minlength=classes)
        assert len(counts) == classes
        if wrong_only:
            assert counts[label] == 0
            counts = np.delete(counts, label)
        expected = counts.sum() / allowed
        # Binomial: five standard deviations.
        assert np.abs(counts - expected).max() <= 5 * np.sqrt(expected) + 1e-9


@pytest.mark.parametrize("wrong_only", [False, True])
@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 1, 4, 4)])
def test_random_labels_keep_the_form_of_the_targets(wrong_only, shape):
    y = torch.randint(2, shape, generator=own(0))
    for targets in (y, y.float()):
        values = L.RandomLabels(2, wrong_only)(batch(targets)).values
        assert (values.dtype, values.shape) == (targets.dtype, targets.shape)
        assert set(values.unique().tolist()) <= {0, 1}
        assert not wrong_only or torch.equal(values, 1 - targets)


def test_random_labels_come_from_the_batchs_generator_alone():
    before = torch.get_rng_state()
    target, y = L.RandomLabels(10), torch.zeros(50).long()
    first, again = (target(L.Batch(torch.zeros(50), y, generator=own(3))).values for _ in range(2))
    shared = own(3)
    passes = [target(L.Batch(torch.zeros(50), y, generator=shared)).values for _ in range(2)]
    assert torch.equal(first, again)
    assert torch.equal(first, passes[0])
    assert not torch.equal(*passes)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("targets", [torch.ones(BATCH).long(), torch.ones(BATCH, 1, 4, 4)])
def test_background_is_one_class_everywhere(index, targets):
    kind, values = L.Background(index)(batch(targets))
    assert kind == "labels"
    assert torch.equal(values, torch.full_like(targets, index))


# --- contradiction --------------------------------------------------------------------------------


def threshold(surety: np.ndarray, share: str) -> float:
    return {"none": 1.0, "half": float(np.median(surety)), "all": 0.0}[share]


@pytest.mark.parametrize("share", ["none", "half", "all"])
@pytest.mark.parametrize("dense", [False, True])
def test_a_sure_binary_teacher_is_told_the_opposite(share, dense):
    model = teacher(1, dense)
    p = expit(logits_of(model, batch().inputs))[:, 0]
    confidence = threshold(np.maximum(p, 1 - p), share)
    sure = np.maximum(p, 1 - p) >= confidence
    expected = np.where(sure, (p <= 0.5).astype(int), L.IGNORE)
    kind, values = L.Contradiction(model, confidence)(batch())
    assert kind == "labels"
    assert np.array_equal(values.numpy(), expected)
    assert sure.mean() == {"none": 0, "half": 0.5, "all": 1}[share]


@pytest.mark.parametrize("share", ["none", "half", "all"])
@pytest.mark.parametrize("dense", [False, True])
def test_a_sure_teacher_of_classes_is_told_all_others(share, dense):
    model = teacher(4, dense)
    p = softmax(logits_of(model, batch().inputs), axis=1)
    confidence = threshold(p.max(axis=1), share)
    sure = p.max(axis=1) >= confidence
    others = (1 - np.moveaxis(np.eye(4)[p.argmax(axis=1)], -1, 1)) / 3
    kind, values = L.Contradiction(model, confidence)(batch())
    assert kind == "probabilities"
    assert np.allclose(values.numpy(), np.where(sure[:, None], others, L.IGNORE))
    assert sure.mean() == {"none": 0, "half": 0.5, "all": 1}[share]


@pytest.mark.parametrize("term", [L.cross_entropy, L.bce, L.kl, lambda **k: L.kl(temperature=3.0, **k)])
def test_what_a_teacher_is_unsure_of_is_left_alone(term):
    model, student = teacher(4, dense=True), teacher(4, dense=True).eval()
    given_batch = batch()
    sure = L.Contradiction(model, 0.8)(given_batch).values[:, 0] != L.IGNORE
    outputs = student(given_batch.inputs).detach().requires_grad_(True)
    objective = L.Objective((term(on="forget", to=L.Contradiction(model, 0.8)),))
    objective.evaluate(student, {"forget": given_batch}, forward=lambda _: outputs).total.backward()
    moved = (outputs.grad != 0).any(dim=1)
    assert torch.equal(moved, sure)


# --- within one class, and other classes ----------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("make", [L.Background, L.Labels, L.Uniform, L.Contradiction])
def test_only_decisions_of_the_class_are_asked_anything(outputs, make):
    model = teacher(outputs, dense=True)
    y = torch.randint(max(outputs, 2), (BATCH, 1, 4, 4), generator=own(3))
    targets = y.float() if outputs == 1 else y
    inner = make(*{L.Uniform: [max(outputs, 2)], L.Contradiction: [model, 0.0]}.get(make, []))
    target = L.Within(inner, 1)
    kind, values = target(batch(targets))
    whole = inner(batch(targets)).values
    asked = (y == 1).expand_as(values) if values.dim() == 4 else y[:, 0] == 1
    assert kind in target.gives
    assert (values[~asked] == L.IGNORE).all()
    assert torch.equal(values[asked], whole[asked])

    outputs_there = torch.zeros(BATCH, outputs, 4, 4, requires_grad=True)
    term = L.cross_entropy(on="forget", to=target)
    objective = L.Objective((term,))
    objective.evaluate(model, {"forget": batch(targets)}, forward=lambda _: 0.1 * outputs_there).total.backward()
    if make is not L.Uniform:  # Equal logits are there already.
        assert torch.equal((outputs_there.grad != 0).any(dim=1), y[:, 0] == 1)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_teacher_within_a_class_is_distilled_there_alone(outputs, temperature):
    model = teacher(outputs, dense=True)
    y = torch.randint(max(outputs, 2), (BATCH, 1, 4, 4), generator=own(3))
    target = L.Within(L.Teacher(model), 1)
    assert target.gives == ("probabilities",)
    student = torch.randn((BATCH, outputs, 4, 4), generator=own(4), requires_grad=True)
    objective = L.Objective((L.kl(on="forget", to=target, temperature=temperature),))
    value = objective.evaluate(model, {"forget": batch(y)}, forward=lambda _: student).total
    value.backward()
    assert torch.equal((student.grad != 0).any(dim=1), y[:, 0] == 1)
    # By numpy, with both outcomes of a single logit.
    sides = [logits_of(model, batch().inputs), student.detach().double().numpy()]
    sides = [np.concatenate([0 * z, z], axis=1) if outputs == 1 else z for z in sides]
    q, p = (softmax(z / temperature, axis=1) for z in sides)
    divergence = temperature**2 * (q * np.log(q / p)).sum(axis=1)
    asked = (y[:, 0] == 1).numpy()
    expected = np.mean([d[a].mean() if a.any() else 0.0 for d, a in zip(divergence, asked, strict=True)])
    assert value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dense", [False, True])
def test_other_classes_are_the_teachers_without_the_own(dense):
    model = teacher(4, dense)
    y = torch.randint(4, (BATCH, 4, 4) if dense else (BATCH,), generator=own(3))
    z = logits_of(model, batch().inputs)
    own_class = np.moveaxis(np.eye(4, dtype=bool)[y.numpy()], -1, 1)
    kind, values = L.OtherClasses(model)(batch(y))
    assert kind == "probabilities"
    assert np.allclose(values.numpy(), softmax(np.where(own_class, -np.inf, z), axis=1), atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_without_classes_a_teacher_says_what_it_says_of_the_others(dense):
    model = teacher(4, dense)
    z = logits_of(model, batch().inputs)
    z[:, [1, 3]] = -np.inf
    expected = softmax(z, axis=1)
    of_logits = L.Without(L.Teacher(model), (1, 3))(batch())
    assert of_logits.kind == "probabilities"
    assert np.allclose(of_logits.values.numpy(), expected, atol=1e-6)
    y = torch.zeros((BATCH, 4, 4) if dense else (BATCH,), dtype=torch.long)
    at_once = PerturbedSign(radius=1e-9)
    shares = L.Without(L.Boundary(model, at_once, soft=True), (1, 3))(batch(y)).values
    assert np.allclose(shares.numpy(), expected, atol=1e-5)
    whole = L.Without(L.Teacher(model), ())(batch()).values
    assert np.allclose(whole.numpy(), softmax(logits_of(model, batch().inputs), axis=1), atol=1e-6)


def test_without_keeps_what_is_left_out_and_divides_nothing_by_zero():
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [-1.0, -1.0, -1.0]])

    @dataclass(frozen=True)
    class Fixed:
        gives = ("probabilities",)

        def __call__(self, batch: L.Batch) -> L.Goal:
            return L.Goal("probabilities", sure)

    values = L.Without(Fixed(), (0,))(batch()).values
    assert torch.allclose(values[:2], torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.375, 0.625]]))
    assert (values[2] == L.IGNORE).all()
    for classes, text in (((0, 1, 2), "leave one of 3 outputs"), ((3,), "leave one of 3 outputs")):
        with pytest.raises(ValueError, match=text):
            L.Without(Fixed(), classes)(batch())
    with pytest.raises(ValueError, match="expected target to give probabilities or logits"):
        L.Without(L.Labels(), (0,))


# --- cached ---------------------------------------------------------------------------------------


def test_a_cached_target_reads_its_table():
    inner = L.Teacher(teacher())
    target = L.Cached(inner)
    table = L.Goal("logits", torch.arange(40.0).reshape(10, 4))
    rows = torch.tensor([3, 0, 9, 3, 1, 2])
    goal = target(batch(indices=rows, tables={L.Cached(inner): table}))
    assert goal.kind == "logits"
    assert torch.equal(goal.values, table.values[rows])


def test_a_cached_target_without_a_table_is_the_target_inside():
    inner = L.Teacher(teacher())
    for given_batch in (
        batch(indices=torch.arange(BATCH)),
        batch(indices=torch.arange(BATCH), tables={L.Cached(L.Labels()): L.Goal("labels", torch.zeros(9))}),
        batch(tables={L.Cached(inner): L.Goal("logits", torch.zeros(9, 4))}),
    ):
        assert torch.equal(L.Cached(inner)(given_batch).values, inner(given_batch).values)


def test_a_cached_target_passes_for_the_target_inside():
    inner = L.Boundary(teacher(), SEARCH, soft=True)
    assert L.Cached(inner).gives == ("probabilities",)
    assert repr(L.Cached(inner)) == repr(inner)
    assert L.Cached(inner, "once") != L.Cached(inner, "epoch") != inner


# --- values, names, refusals ----------------------------------------------------------------------


def test_targets_are_values():
    model = teacher()
    pairs = [
        (L.Labels(), L.Labels(), L.Uniform(3)),
        (L.Teacher(model), L.Teacher(model), L.Teacher(teacher())),
        (L.Boundary(model, SEARCH), L.Boundary(model, SEARCH), L.Boundary(model, SEARCH, soft=True)),
        (L.Uniform(3), L.Uniform(3), L.Uniform(4)),
        (L.RandomLabels(3), L.RandomLabels(3), L.RandomLabels(3, wrong_only=True)),
        (L.Background(), L.Background(0), L.Background(1)),
        (L.Contradiction(model), L.Contradiction(model, 0.9), L.Contradiction(model, 0.8)),
        (L.Cached(L.Labels()), L.Cached(L.Labels(), "once"), L.Cached(L.Labels(), "epoch")),
    ]
    for first, same, other in pairs:
        assert first == same
        assert hash(first) == hash(same)
        assert first != other
        assert isinstance(first, L.Target)
    with pytest.raises(FrozenInstanceError):
        L.Background().index = 3


def test_targets_print_in_a_line():
    model = teacher()
    shown = {
        L.Labels(): "Labels()",
        L.Teacher(model): "Teacher(Sequential)",
        L.Boundary(model, SEARCH): "Boundary(radius=0.3, steps=3)",
        L.Boundary(model, SEARCH, soft=True): "Boundary(radius=0.3, steps=3, soft)",
        L.Boundary(model, SEARCH, soft=True, top_k=3, mix=0.25): "Boundary(radius=0.3, steps=3, soft, top 3, mix=0.25)",
        L.Boundary(model, SEARCH, uncrossed="runner-up"): "Boundary(radius=0.3, steps=3, runner-up)",
        L.Uniform(10): "Uniform(num_classes=10)",
        L.RandomLabels(10, True): "RandomLabels(num_classes=10, wrong_only=True)",
        L.Background(): "Background(index=0)",
        L.Contradiction(model): "Contradiction(Sequential, confidence=0.9)",
        L.Cached(L.Uniform(2)): "Uniform(num_classes=2)",
    }
    assert {target: str(target) for target in shown} == shown


def broken() -> nn.Module:
    model = teacher()
    with torch.no_grad():
        model[-1].bias[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: L.Teacher(None), TypeError, "^expected model to be a torch.nn.Module, but got NoneType$"),
        (lambda: L.Teacher(broken()), ValueError, "^expected model of Teacher's '5.bias' to be finite, but got 1 NaN"),
        (
            lambda: L.Contradiction("x"),
            TypeError,
            "^expected model to be a torch.nn.Module, but got str",
        ),
        (lambda: L.Contradiction(teacher(), 1.1), ValueError, r"^expected confidence in \[0, 1\], but got 1.1$"),
        (lambda: L.Boundary(SEARCH, teacher()), TypeError, "^expected model to be a torch.nn.Module"),
        (lambda: L.Boundary(teacher(), 0.1), TypeError, "^expected search to be a PerturbedSign, but got float$"),
        (lambda: L.Boundary(teacher(), SEARCH, mix=1.5), ValueError, r"^expected mix in \[0, 1\], but got 1.5$"),
        (
            lambda: L.Boundary(teacher(), SEARCH, top_k=3),
            ValueError,
            "^expected soft=True with top_k, but got soft=False: a hard label has no top k$",
        ),
        (
            lambda: L.Boundary(teacher(), SEARCH, soft=True, top_k=0),
            ValueError,
            "^expected top_k to be at least 1, but got 0$",
        ),
        (
            lambda: L.Boundary(teacher(), SEARCH, uncrossed="runnerup"),
            ValueError,
            r"^expected uncrossed to be one of \['keep', 'runner-up'\], but got 'runnerup'; did you mean 'runner-up'",
        ),
        (
            lambda: L.Within(L.Labels(), ()),
            ValueError,
            "^expected label to be a class or a tuple of classes, but got an empty tuple$",
        ),
        (lambda: L.Within(L.Labels(), (1, -1)), ValueError, "^expected label to be at least 0, but got -1$"),
        (lambda: L.Within(L.Labels(), -1), ValueError, "^expected label to be at least 0, but got -1$"),
        (lambda: L.Within(None, 1), TypeError, "^expected target to be a target, but got NoneType$"),
        (lambda: L.Uniform(1), ValueError, "^expected num_classes to be at least 2, but got 1$"),
        (lambda: L.RandomLabels(2.0), TypeError, "^expected num_classes to be an int, but got float: 2.0$"),
        (lambda: L.Background(-1), ValueError, "^expected index to be at least 0, but got -1$"),
        (lambda: L.Cached(L.Labels(), "daily"), ValueError, r"^expected refresh to be one of \['once', 'epoch'\]"),
        (lambda: L.Cached(teacher()), TypeError, "^expected target to be a target, but got Sequential$"),
    ],
)
def test_targets_that_make_no_sense_are_refused_when_made(build, error, text):
    with pytest.raises(error, match=text):
        build()
