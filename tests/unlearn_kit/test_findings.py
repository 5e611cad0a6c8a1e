"""Multi-label heads, one sigmoid a finding: tasks, losses, searches and gradients, beside other libraries' figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.audits import linear_probe, train_ensemble
from unlearn_kit.audits.probe import _halves
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.boundary.hypergradient import smoothed_search
from unlearn_kit.composition import cumulative_tasks, joint_task
from unlearn_kit.data import TensorImages, load_tensors, subset, with_ignore_index
from unlearn_kit.data.findings import strata
from unlearn_kit.engine import train
from unlearn_kit.gradients import per_sample_gradients
from unlearn_kit.metrics import evaluate
from unlearn_kit.models import declare_head
from unlearn_kit.outputs import IGNORE, decisions
from unlearn_kit.seeding import derive, isolated

K = 4
SOURCE = torch.Generator().manual_seed(0)
X = torch.rand(12, 6, generator=SOURCE)
Y = (torch.rand(12, K, generator=SOURCE) < 0.5).float()
Y[:, 0] = torch.tensor([1.0, 0.0] * 6)  # neither always there nor never
UNKNOWN = torch.zeros(12, K, dtype=torch.bool)
UNKNOWN[::3, 1] = True
UNKNOWN[5] = True
SOME = Y.masked_fill(UNKNOWN, IGNORE)


def network(seed: int = 0, outputs: int = K) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs)).eval()


def data(count: int = 40, targets: Tensor | None = None, seed: int = 1) -> TensorDataset:
    source = torch.Generator().manual_seed(seed)
    drawn = (torch.rand(count, K, generator=source) < torch.tensor([0.5, 0.4, 0.2, 0.3])).long()
    return TensorDataset(torch.rand(count, 6, generator=source), drawn if targets is None else targets)


def value(term: L.Term, model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float(L.Objective((term,)).evaluate(model, {"forget": L.Batch(x, y)}).total.detach())


def mean_bce(z: np.ndarray, y: np.ndarray) -> float:
    """The mean over samples of the mean over known findings; a sample without any is worth 0."""
    rows = []
    for logits, truth in zip(z, y, strict=True):
        known = truth != IGNORE
        p = 1 / (1 + np.exp(-logits[known]))
        own = -(truth[known] * np.log(p) + (1 - truth[known]) * np.log(1 - p))
        rows.append(own.mean() if known.any() else 0.0)
    return float(np.mean(rows))


@pytest.mark.parametrize("factory", [L.cross_entropy, L.bce])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_the_loss_is_the_mean_over_findings_of_each_sigmoid(factory: Any, dtype: torch.dtype) -> None:
    model = network()
    found = value(factory(on="forget"), model, X, Y.to(dtype))
    z = model(X).detach()
    p = z.sigmoid().double().numpy()
    both = [log_loss(Y[:, k], p[:, k], labels=[0, 1]) for k in range(K)]
    assert found == pytest.approx(float(np.mean(both)), rel=1e-5)
    assert found == pytest.approx(float(F.binary_cross_entropy_with_logits(z, Y)), rel=1e-6)


@pytest.mark.parametrize("factory", [L.cross_entropy, L.bce])
def test_unknown_findings_are_left_out_of_each_samples_mean(factory: Any) -> None:
    model = network()
    wanted = mean_bce(model(X).detach().double().numpy(), SOME.numpy())
    assert value(factory(on="forget"), model, X, SOME) == pytest.approx(wanted, rel=1e-5)
    assert value(factory(on="forget"), model, X, SOME.long()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_is_the_divergence_of_each_pair_of_sigmoids(temperature: float) -> None:
    model, teacher = network(), network(1)
    q, p = ((m(X) / temperature).sigmoid().detach().double().numpy() for m in (teacher, model))
    each = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    wanted = temperature**2 * each.mean()
    term = L.kl(on="forget", to=L.Teacher(teacher), temperature=temperature)
    assert value(term, model, X, Y) == pytest.approx(wanted, rel=1e-4)


def test_logits_are_compared_one_by_one() -> None:
    model, teacher = network(), network(1)
    wanted = float((model(X) - teacher(X)).square().mean().detach())
    assert value(L.mse(on="forget", to=L.Teacher(teacher)), model, X, Y) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (L.Uniform(2), torch.full_like(Y, 0.5)),
        (L.Background(), torch.zeros_like(Y)),
        (L.OtherClasses(network(1)), 1 - Y),
        (L.Contradiction(network(1), confidence=0.5), 1.0 - (network(1)(X) > 0).float()),
    ],
)
def test_targets_speak_of_each_finding(target: L.Target, wanted: Tensor) -> None:
    model = network()
    expected = float(F.binary_cross_entropy_with_logits(model(X).detach(), wanted))
    assert value(L.cross_entropy(on="forget", to=target), model, X, Y) == pytest.approx(expected, rel=1e-5)


def test_random_labels_draw_each_finding_by_itself() -> None:
    goal = L.RandomLabels(2)(L.Batch(torch.rand(500, 6), torch.ones(500, K)))
    assert goal.values.shape == (500, K)
    assert set(goal.values.unique().tolist()) == {0.0, 1.0}
    assert float(goal.values.mean()) == pytest.approx(0.5, abs=0.05)  # 2,000 draws: five standard errors


def test_of_a_finding_to_forget_the_others_are_left_out() -> None:
    model, teacher = network(), network(1)
    labels = L.cross_entropy(on="forget", to=L.Findings(L.Labels(), (2,)))
    wanted = float(F.binary_cross_entropy_with_logits(model(X)[:, 2].detach(), Y[:, 2]))
    assert value(labels, model, X, Y) == pytest.approx(wanted, rel=1e-5)
    assert value(labels, model, X, Y.to(torch.uint8)) == pytest.approx(wanted, rel=1e-5)
    distilled = L.kl(on="forget", to=L.Findings(L.Teacher(teacher), (1, 3)))
    q, p = (m(X)[:, [1, 3]].sigmoid().detach().double().numpy() for m in (teacher, model))
    each = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    assert value(distilled, model, X, Y) == pytest.approx(each.mean(), rel=1e-4)
    with pytest.raises(ValueError, match=r"expected targets \(B, K\) with the findings \[4\], but got shape \(12, 4\)"):
        value(L.cross_entropy(on="forget", to=L.Findings(L.Labels(), (4,))), model, X, Y)


def test_a_finding_may_be_asked_only_where_it_is_present() -> None:
    model = network()
    term = L.cross_entropy(on="forget", to=L.Findings(L.Background(), (0, 2), label=1))
    each = F.binary_cross_entropy_with_logits(model(X).detach(), torch.zeros_like(Y), reduction="none")[:, [0, 2]]
    asked = Y[:, [0, 2]] == 1
    rows = [float(own[there].mean()) if there.any() else 0.0 for own, there in zip(each, asked, strict=True)]
    assert value(term, model, X, Y) == pytest.approx(np.mean(rows), rel=1e-5)
    assert str(term).startswith("cross_entropy(forget -> Findings(Background(index=0), [0, 2], label=1)")
    with pytest.raises(ValueError, match="expected label to be 0, 1 or None, but got 2"):
        L.Findings(L.Labels(), (0,), label=2)
    with pytest.raises(ValueError, match="expected findings to hold at least one, but got an empty tuple"):
        L.Findings(L.Labels(), ())


def test_gradients_are_those_of_each_samples_own_loss() -> None:
    model = network()
    found = per_sample_gradients(model, X, SOME)
    for i in range(len(X)):
        known = SOME[i] != IGNORE
        loss = (
            F.binary_cross_entropy_with_logits(model(X[i])[known], Y[i][known]) if known.any() else 0 * model(X).sum()
        )
        for (name, _), wanted in zip(
            model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            assert torch.allclose(found[name][i], wanted, atol=1e-6)


def test_a_search_climbs_the_loss_of_the_findings_that_are_known() -> None:
    model, search = network(), PerturbedSign(radius=0.01, bounds=None)
    x = X.clone().requires_grad_(True)
    known = (SOME != IGNORE).float()
    losses = F.binary_cross_entropy_with_logits(model(x), Y, reduction="none")
    (gradient,) = torch.autograd.grad((losses * known).sum(), x)
    found = search.search(model, X, SOME)
    assert torch.allclose(found.inputs, X + 0.01 * gradient.sign(), atol=1e-6)
    assert found.labels.shape == found.flipped.shape == (12, K)
    assert torch.equal(found.labels, (model(found.inputs) > 0).long())


def test_a_named_finding_flips_alone() -> None:
    linear = nn.Linear(K, K, bias=False)
    linear.weight.data = torch.eye(K)
    x = torch.full((1, K), 0.05)
    y = torch.full((1, K), IGNORE)
    y[0, 2] = 1
    found = PerturbedSign(radius=0.1, steps=3, bounds=None).search(linear, x, y)
    assert found.flipped.tolist() == [[False, False, True, False]]


def test_any_flip_is_that_of_the_finding_nearest_to_one() -> None:
    linear = nn.Linear(K, K, bias=False)
    linear.weight.data = torch.eye(K)
    x = torch.tensor([[0.3, 0.06, 0.2, -0.4], [0.3, 0.5, 0.2, -0.04], [0.3, 0.05, -0.2, -0.1]])
    y = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [1, IGNORE, 1, 0]])
    search = PerturbedSign(radius=0.15, steps=10, bounds=None, stop_when_flipped=True, flips="any")
    found = search.search(linear, x, y)
    # The third is wrong in its third finding already, and does not know its second: the last one is nearest.
    assert found.flipped.tolist() == [
        [False, True, False, False],
        [False, False, False, True],
        [False, False, False, True],
    ]
    every = PerturbedSign(radius=0.5, steps=10, bounds=None, stop_when_flipped=True).search(linear, x[:2], y[:2])
    assert every.flipped.all()


def test_where_nothing_flips_the_runner_up_is_the_nearest_change() -> None:
    linear = nn.Linear(K, K, bias=False)
    linear.weight.data = torch.eye(K)
    x, y = torch.tensor([[3.0, 2.0, 5.0, -4.0], [0.05, 2.0, 5.0, -4.0]]), torch.tensor([[1, 1, 1, 0]] * 2)
    search = PerturbedSign(radius=0.1, steps=2, bounds=None, flips="any")
    goal = L.Boundary(linear, search, uncrossed="runner-up")(L.Batch(x, y))
    assert goal.values.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    keeping = L.Boundary(linear, search)(L.Batch(x, y))
    assert keeping.values.tolist() == [[1, 1, 1, 0], [0, 1, 1, 0]]


def test_the_smoothed_search_reads_findings_as_the_search_does() -> None:
    search = PerturbedSign(radius=0.02, steps=2, noise=1e-3, bounds=None)
    soft = smoothed_search(search, network(), X, Y, mode="unrolled")
    hard = PerturbedSign(radius=0.02, steps=2, bounds=None).search(network(), X, Y)
    assert torch.allclose(soft.inputs, hard.inputs, atol=1e-3)


def test_only_rows_of_several_numbers_are_findings() -> None:
    assert decisions(torch.zeros(3, 4), torch.zeros(3, 4)).shape == (3, 1, 4)
    for logits, targets in [((3, 4), (3,)), ((3, 1), (3, 1)), ((3, 4), (3, 2)), ((3, 1, 4, 4), (3, 4, 4))]:
        assert decisions(torch.zeros(logits), torch.zeros(targets)).shape == logits


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_a_finding_is_forgotten_where_it_is_present() -> None:
    train, test = data(), data(60, seed=2)
    train.tensors[1][3, 2] = IGNORE
    task = UnlearnTask.forget_class(train, test, 2)
    assert (task.kind, task.num_classes, task.outcomes, task.forget_classes) == ("multilabel", K, 2, (2,))
    assert task.forget_indices is not None
    assert task.forget_indices.tolist() == (train.tensors[1][:, 2] == 1).nonzero().flatten().tolist()
    assert 3 in task.retain.indices  # unknown is not present
    for split, there in [("forget_test", 1), ("retain_test", 0), ("forget_validation", 1), ("retain_validation", 0)]:
        rows = torch.stack([y for _, y in getattr(task, split)])
        assert (rows[:, 2] == there).all()
    assert (
        len(task.forget_test) + len(task.retain_test) + len(task.forget_validation) + len(task.retain_validation) == 60
    )
    assert str(task).startswith(f"<UnlearnTask finding 2: {len(task.forget)} of 40 images; validation ")


@pytest.mark.parametrize("finding", range(K))
def test_validation_data_hold_every_finding(finding: int) -> None:
    test = data(60, seed=2)
    task = UnlearnTask.forget_random(data(), test, 0.2)
    shares = [float(torch.stack([y for _, y in part])[:, finding].float().mean()) for part in (task.retain_validation,)]
    assert shares[0] > 0
    # By the labels alone: the same samples whatever is forgotten.
    other = UnlearnTask.forget_class(data(), test, finding)
    aside = sorted([*other.retain_validation.indices, *other.forget_validation.indices])
    assert aside == sorted(task.retain_validation.indices)


def test_a_stratum_is_the_rarest_finding_that_is_present() -> None:
    rows = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1], [IGNORE, 0, 0]])
    assert strata(rows).tolist() == [1, 0, 3, 2, 2, 3]


def test_what_nobody_knows_may_bear_another_number() -> None:
    rows = torch.tensor([[1, 0], [255, 1], [0, 0], [1, 1]], dtype=torch.uint8)
    images = TensorImages(torch.rand(4, 1, 2, 2), rows)
    task = UnlearnTask.forget_samples(images, images, [1], ignore_index=255)
    assert task.forget[0][1].tolist() == [IGNORE, 1]
    whole = UnlearnTask.forget_class(with_ignore_index(images, 255), with_ignore_index(images, 255), 0)
    assert len(whole.forget) == 2


ROWS = [[0.0, 1.0, 1.0, 0.0]] * 4


@pytest.mark.parametrize(
    ("targets", "options", "text"),
    [
        (
            [[0, 1, 2, 0]] * 4,
            {},
            r"expected the findings of train to be 0 or 1, but got 2; an unknown finding is -1, or",
        ),
        ([[0.5, 1, 1, 0]] * 4, {}, r"expected the findings of train to be 0 or 1, but got 0\.5"),
        ([[float("nan"), 1, 1, 0]] * 4, {}, "expected the findings of train to be 0 or 1, but got NaN; an unknown"),
        (ROWS, {"num_classes": 5}, "expected num_classes to be the 4 findings of train, but got 5"),
        (ROWS, {"label": 4}, r"expected label to be a finding in \[0, 3\], but got 4"),
        (ROWS, {"label": 0}, r"expected at least one sample to forget, but got an empty forget set \(finding 0"),
    ],
)
def test_rows_that_are_no_findings_are_refused(targets: Any, options: dict[str, Any], text: str) -> None:
    train = TensorDataset(torch.rand(4, 6), torch.tensor(targets))
    arguments = {"label": 1, **options}
    with pytest.raises(ValueError, match=text):
        UnlearnTask.forget_class(train, TensorDataset(torch.rand(4, 6), torch.tensor(ROWS)), **arguments)


def test_held_out_data_with_other_findings_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected the targets of test to be rows of 4 findings of train, but got shape"
    ):
        UnlearnTask.forget_class(data(), TensorDataset(torch.rand(4, 6), torch.tensor([[0, 1, 1]] * 4)), 1)


@pytest.mark.parametrize(
    ("targets", "kind", "text"),
    [
        (
            Y,
            "classification",
            r"rows of findings, one 0 or 1 each \(of classes that do, give their index, such as row.arg",
        ),
        (Y, "segmentation", r"which are rows of findings"),
        (
            Y[:, 0].long(),
            "multilabel",
            r"class labels \(of findings that do not exclude each other, give one 0 or 1 each",
        ),
        (Y.reshape(12, 2, 2), "multilabel", "which are masks"),
    ],
)
def test_another_kind_of_task_is_named_with_the_remedy(targets: Tensor, kind: Any, text: str) -> None:
    part = TensorDataset(X, targets)
    with pytest.raises(ValueError, match=text):
        UnlearnTask(part, part, part, part, K, kind)


def test_rows_that_look_like_classes_are_told() -> None:
    one_hot = TensorDataset(torch.rand(8, 6), F.one_hot(torch.arange(8) % K, K))
    with pytest.warns(UserWarning, match=r"every target of train has exactly one 1 of 4: .* \(targets.argmax\(1\)\)"):
        UnlearnTask.forget_random(one_hot, one_hot, 0.5)


def test_requests_of_findings_and_of_samples_are_not_one() -> None:
    train, test = data(), data(60, seed=2)
    finding, other = (UnlearnTask.forget_class(train, test, k) for k in (1, 2))
    samples = UnlearnTask.forget_random(train, test, 0.2)
    both = joint_task([finding, other])
    assert both.forget_classes == (1, 2)
    with pytest.raises(
        ValueError, match="expected requests that forget findings, or requests that forget whole samples"
    ):
        joint_task([finding, samples])
    first, second = cumulative_tasks([finding, samples])
    assert (first.forget_classes, second.forget_classes) == ((1,), ())
    assert not set(second.retain.indices) & set(finding.forget.indices)
    # An image that was forgotten for one finding is scored by that one.
    source = network()
    known = []
    for x, y in both.forget:
        there = y[[1, 2]] == 1
        known.append(float((source(x)[[1, 2]] > 0)[there].float().mean()))
    assert evaluate(source, both).forget == pytest.approx(np.mean(known))


def test_a_probe_of_several_findings_is_one_each() -> None:
    source = network()
    declare_head(source, "2")
    task = UnlearnTask.forget_random(data(60), data(60, seed=2), 0.5)
    report = linear_probe(source, task, seed=3)
    assert report is not None

    def features(part: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = load_tensors(subset(part, rows))
        return source[1](source[0](x)).detach().double().numpy(), y.numpy()

    halves = {name: _halves(np.arange(30), 5_000, derive(3, "probe", name)) for name in ("forget", "retain")}
    fitted = [features(getattr(task, name), own[0]) for name, own in halves.items()]
    x, y = (np.concatenate(both) for both in zip(*fitted, strict=True))
    judged, truth = features(task.forget, halves["forget"][1])
    scaler = StandardScaler().fit(x)
    right = []
    for k in range(K):
        probe = LogisticRegression(max_iter=1000).fit(scaler.transform(x), y[:, k])
        right.append((probe.predict(scaler.transform(judged)) == truth[:, k]).mean())
    assert report.forget == pytest.approx(np.mean(right))


def test_ensembles_train_as_the_engine_does() -> None:
    rows = data()
    rows.tensors[1][3] = IGNORE
    options: dict[str, Any] = {"epochs": 2, "batch_size": 10, "lr": 0.1}

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, K))

    with isolated(4):
        start = build()
    alone = train(start, rows, seed=4, **options).model
    for mode in ("vmap", "sequential"):
        ensemble = train_ensemble(build, rows, [torch.arange(40)] * 2, seeds=[4, 5], mode=mode, **options)
        for name, wanted in alone.state_dict().items():
            assert torch.allclose(ensemble.stack[name][0], wanted, atol=1e-5)
