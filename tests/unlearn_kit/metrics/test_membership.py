from __future__ import annotations

import copy
import math
from dataclasses import replace
from decimal import Decimal, getcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from unlearn_kit.metrics import (
    FEATURES,
    MembershipReport,
    class_matched,
    evaluate,
    loss_auc,
    membership_inference,
    probability_smaller,
    true_positive_rate,
)

SAME = nn.Identity()  # the data sets below hold the logits themselves


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(logits: list[float], label: int) -> dict[str, float]:
    """Every feature with 200 digits, the way it is written down in the definition."""
    getcontext().prec = 200
    weights = [Decimal(z).exp() for z in logits]
    p = [w / sum(weights) for w in weights]
    q = [sum(weights[:i] + weights[i + 1 :]) / sum(weights) for i in range(len(p))]
    others = [i for i in range(len(p)) if i != label]
    return {
        "confidence": float(p[label]),
        "loss": float(-p[label].ln()),
        "entropy": float(-sum(a * a.ln() for a in p)),
        "modified_entropy": float(-q[label] * p[label].ln() - sum(p[i] * q[i].ln() for i in others)),
    }


@pytest.mark.parametrize(
    "logits",
    [
        [0.3, -1.2, 2.0],
        [0.0, 0.0],
        [40.0, 0.0, 1.0],
        [1e4, 0.0, -1e4],
        [1e4, 1e4, 0.0],
        [-1e4, 1e4 - 100, 1e4],
        [7.5],
        [1e4],
        [-1e4],
    ],
)
def test_features_are_exact_also_when_saturated(logits: list[float]) -> None:
    given = torch.tensor(logits).tolist()  # as float32 holds them
    wide = [0.0, *given] if len(given) == 1 else given
    for label in range(len(wide)):
        expected = exact(wide, label)
        for name, value in expected.items():
            found = FEATURES[name](torch.tensor([logits]), torch.tensor([label]))
            assert found.dtype == torch.float64
            assert found.item() == pytest.approx(value, rel=1e-9, abs=1e-300), name


def test_features_agree_with_scikit_learn_and_scipy() -> None:
    z = torch.randn(50, 4, generator=rng(0))
    y = torch.randint(4, (50,), generator=rng(1))
    p = z.double().softmax(dim=1).numpy()
    assert FEATURES["loss"](z, y).mean().item() == pytest.approx(log_loss(y, p, labels=range(4)))
    np.testing.assert_allclose(FEATURES["entropy"](z, y), scipy_entropy(p, axis=1))
    np.testing.assert_allclose(FEATURES["confidence"](z, y), p[np.arange(50), y])
    np.testing.assert_array_equal(FEATURES["correctness"](z, y), p.argmax(axis=1) == y.numpy())


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("classes", [1, 3])
def test_features_of_masks_are_means_over_pixels(name: str, classes: int) -> None:
    z = 3 * torch.randn(2, classes, 4, 5, generator=rng(2))
    y = torch.randint(max(classes, 2), (2, 4, 5), generator=rng(3))
    pixels = FEATURES[name](z.movedim(1, -1).reshape(-1, classes), y.flatten()).view(2, -1)
    torch.testing.assert_close(FEATURES[name](z, y), pixels.mean(dim=1))


finite = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(finite, finite)
def test_probability_smaller_is_the_area_under_the_roc_curve(first: list[float], second: list[float]) -> None:
    truth = [0] * len(first) + [1] * len(second)
    found = probability_smaller(torch.tensor(first), torch.tensor(second))
    assert found == pytest.approx(roc_auc_score(truth, first + second))


@settings(max_examples=60, deadline=None)
@given(finite, finite, st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_true_positive_rate_agrees_with_the_roc_curve(members, others, at: float) -> None:
    fpr, tpr, _ = roc_curve([1] * len(members) + [0] * len(others), members + others, drop_intermediate=False)
    # A rate of 1 leaves one non-member below the threshold at least, and so nothing but the last point out.
    allowed = fpr <= at + 1e-12 if at < 1 else fpr < 1
    expected = max(tpr[allowed])
    assert true_positive_rate(torch.tensor(members), torch.tensor(others), at=at) == pytest.approx(expected)


def test_one_per_cent_of_2900_is_29_false_positives() -> None:
    others = torch.arange(2900.0)
    assert true_positive_rate(torch.tensor([2870.5, 2869.5]), others) == 0.5


def test_loss_auc_finds_memorised_members() -> None:
    y = torch.randint(3, (80,), generator=rng(4))
    members = 4 * nn.functional.one_hot(y, 3) + torch.randn(80, 3, generator=rng(5))
    others = nn.functional.one_hot(y, 3) + torch.randn(80, 3, generator=rng(6))
    found = loss_auc(SAME, TensorDataset(members, y), TensorDataset(others, y), batch_size=32)
    losses = [nn.functional.cross_entropy(z.double(), y, reduction="none") for z in (members, others)]
    expected = roc_auc_score([1] * 80 + [0] * 80, -torch.cat(losses).numpy())
    assert found == pytest.approx(expected)
    assert found > 0.8


def test_loss_auc_tells_saturated_losses_apart() -> None:
    y = torch.zeros(4, dtype=torch.int64)
    surer = TensorDataset(torch.tensor([[200.0, 0.0]] * 4), y)
    sure = TensorDataset(torch.tensor([[100.0, 0.0]] * 4), y)
    assert loss_auc(SAME, surer, sure) == 1.0
    assert loss_auc(SAME, sure, surer) == 0.0
    assert loss_auc(SAME, sure, sure) == 0.5


def test_loss_auc_of_one_sample_of_none_and_of_nan() -> None:
    one = TensorDataset(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    none = TensorDataset(torch.zeros(0, 2), torch.zeros(0))
    assert loss_auc(SAME, one, one) == 0.5
    assert loss_auc(SAME, one, none) is None
    assert loss_auc(SAME, none, one) is None
    with pytest.raises(ValueError, match="expected logits to be finite"):
        loss_auc(SAME, one, TensorDataset(torch.tensor([[torch.nan, 0.0]]), torch.tensor([0])))


def test_class_matched_keeps_proportions_and_uses_what_there_is() -> None:
    wanted = torch.tensor([0] * 4 + [1] * 2 + [5] * 3)
    available = torch.tensor([0, 1, 2] * 10)
    chosen = class_matched(wanted, available)
    assert len(chosen.unique()) == len(chosen)
    assert torch.bincount(available[chosen]).tolist() == [10, 5]
    assert torch.equal(chosen, class_matched(wanted, available))
    assert not torch.equal(chosen, class_matched(wanted, available, seed=1))


def test_class_matched_shrinks_every_class_with_the_scarcest() -> None:
    available = torch.tensor([0] + [1] * 9)
    chosen = class_matched(torch.tensor([0] * 5 + [1] * 5), available)
    assert torch.bincount(available[chosen]).tolist() == [1, 1]
    assert len(class_matched(torch.tensor([3]), available)) == 0
    assert len(class_matched(torch.tensor([1, 1]), available)) == 9
    chosen = class_matched(torch.tensor([0] * 100 + [1]), torch.tensor([0] * 20 + [1] * 20))
    assert torch.bincount(chosen // 20).tolist() == [20, 1]


@pytest.mark.parametrize(("wanted", "available"), [((2000, 200), (1000, 1000)), ((200, 20, 50), (50, 50, 0))])
def test_losses_that_depend_on_the_class_alone_tell_nothing(wanted, available) -> None:
    y, others = (torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in (wanted, available))
    z = torch.tensor([[0.0, 3.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 6.0]])
    forgotten = SimpleNamespace(
        forget=TensorDataset(z[y], y),
        retain=TensorDataset(z[:2].repeat(60, 1), torch.arange(2).repeat(60)),
        forget_test=TensorDataset(z[:0], y[:0]),
        retain_test=TensorDataset(z[others], others),
        num_classes=3,
        kind="classification",
        forget_classes=(),
    )
    # Both sides hold the same two values in the same proportions: every pair is a tie or has its mirror image.
    assert evaluate(SAME, forgotten).membership == pytest.approx(0.5, abs=1e-12)
    report = membership_inference(SAME, forgotten, features="loss", limit=20)
    assert report is not None
    assert report.auc == pytest.approx(0.5, abs=0.01)  # a class's share is off by half a sample of forty at most


def split(seed: int, n: int, strength: float, labels: Tensor | None = None) -> TensorDataset:
    """Logits right by ``strength`` on average."""
    y = torch.randint(3, (n,), generator=rng(seed)) if labels is None else labels
    return TensorDataset(strength * nn.functional.one_hot(y, 3) + torch.randn(n, 3, generator=rng(seed + 100)), y)


def task(forget: float, *, forget_test: int = 0, held_out: float = 1.0) -> SimpleNamespace:
    return SimpleNamespace(
        forget=split(1, 100, forget),
        retain=split(2, 400, 6.0),
        forget_test=split(3, forget_test, held_out),
        retain_test=split(4, 300, held_out),
        num_classes=3,
        kind="classification",
    )


@pytest.mark.parametrize("attack", ["logistic", "svc"])
def test_the_attack_tells_remembered_from_forgotten(attack: str) -> None:
    remembered = membership_inference(SAME, task(6.0), attack=attack)
    forgotten = membership_inference(SAME, task(1.0), attack=attack)
    assert remembered is not None
    assert forgotten is not None
    assert remembered.forget_share > 0.8
    assert forgotten.forget_share < 0.4
    assert remembered.auc > 0.85
    assert 0.35 < forgotten.auc < 0.65
    assert remembered.attack_auc > 0.85
    assert remembered.tpr > forgotten.tpr
    assert remembered.attack == attack
    assert remembered.features == tuple(FEATURES)


def test_the_attack_finds_nothing_where_members_are_like_others() -> None:
    report = membership_inference(SAME, task(6.0, held_out=6.0), features="loss")
    assert report is not None
    assert 0.35 < report.attack_auc < 0.65
    assert report.features == ("loss",)


def test_one_feature_and_logistic_regression_against_an_attack_written_out() -> None:
    # With one class, equal numbers and a limit above them, only the order of the pairs is left to chance.
    ones = torch.zeros(40, dtype=torch.int64)
    made = task(3.0)
    made.retain, made.retain_test = split(5, 40, 5.0, ones), split(6, 40, 1.0, ones)
    made.forget_test = split(7, 30, 1.0)
    report = membership_inference(SAME, made, features=["confidence"])
    assert report is not None
    assert report.fitted_on == 40

    def feature(data: TensorDataset) -> np.ndarray:
        z, y = data.tensors
        return z.double().softmax(dim=1).gather(1, y[:, None]).numpy()

    # Any monotone attack ranks by the feature itself.
    forget, held_out = feature(made.forget), feature(made.forget_test)
    truth = [1] * 100 + [0] * 30
    assert report.auc == pytest.approx(roc_auc_score(truth, np.concatenate([forget, held_out])[:, 0]))
    whole = LogisticRegression(C=1e3).fit(
        np.concatenate([feature(made.retain), feature(made.retain_test)]), [1] * 40 + [0] * 40
    )
    assert report.forget_share == pytest.approx(whole.predict(forget).mean(), abs=0.15)


def test_class_sizes_do_not_give_membership_away() -> None:
    """Members mostly of class 0, others mostly of class 1, outputs that depend on the class alone."""
    level = torch.tensor([[5.0, 0.0], [0.0, 1.0]])
    members, others = torch.tensor([0] * 90 + [1] * 10), torch.tensor([0] * 10 + [1] * 90)
    made = SimpleNamespace(
        forget=TensorDataset(level[members], members),
        retain=TensorDataset(level[members], members),
        forget_test=TensorDataset(torch.zeros(0, 2), torch.zeros(0)),
        retain_test=TensorDataset(level[others], others),
    )
    report = membership_inference(SAME, made, features=("confidence", "entropy"))
    assert report is not None
    assert report.fitted_on == 20
    assert report.attack_auc == 0.5


def test_an_attack_never_judges_held_out_images_it_was_fitted_on() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return x

    made = task(6.0)
    membership_inference(Spy(), made, limit=100)
    fit_others, held_out = seen[1], seen[3]
    shared = {tuple(row.tolist()) for row in fit_others} & {tuple(row.tolist()) for row in held_out}
    assert len(fit_others) == 50
    assert len(held_out) > 150
    assert not shared


def test_reports_depend_on_the_seed_only_and_leave_the_caller_alone() -> None:
    made, model = task(3.0, forget_test=50), nn.Sequential(nn.BatchNorm1d(3)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = membership_inference(model, made, seed=3)
    assert first == membership_inference(model, made, seed=3, batch_size=17)
    assert first != membership_inference(model, made, seed=4)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Hidden(Dataset):
    """Data whose labels can only be had by reading them."""

    def __init__(self, data: TensorDataset) -> None:
        self.rows = [data[i] for i in range(len(data))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        torch.rand(1)
        return self.rows[index]


def test_hidden_labels_give_the_same_report() -> None:
    made = task(3.0)
    hidden = SimpleNamespace(**{k: Hidden(v) if isinstance(v, TensorDataset) else v for k, v in vars(made).items()})
    state = torch.get_rng_state()
    assert membership_inference(SAME, hidden) == membership_inference(SAME, made)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("hide", [False, True])
def test_masks_are_audited_by_their_mean_loss(hide: bool) -> None:
    def masks(seed: int, n: int, strength: float) -> Dataset:
        y = torch.randint(2, (n, 1, 4, 4), generator=rng(seed)).float()
        data = TensorDataset(strength * (2 * y - 1) + torch.randn(n, 1, 4, 4, generator=rng(seed + 1)), y)
        return Hidden(data) if hide else data

    made = SimpleNamespace(
        forget=masks(0, 10, 4.0),
        retain=masks(2, 40, 4.0),
        forget_test=masks(4, 0, 1.0),
        retain_test=masks(6, 40, 1.0),
    )
    report = membership_inference(SAME, made, features="loss")
    assert report is not None
    assert report.forget_share == report.auc == report.attack_auc == 1.0


def test_one_pair_and_no_pair() -> None:
    one = TensorDataset(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    other = TensorDataset(torch.tensor([[0.0, 3.0]]), torch.tensor([1]))
    none = TensorDataset(torch.zeros(0, 2), torch.zeros(0))
    made = SimpleNamespace(forget=one, retain=one, forget_test=none, retain_test=one)
    report = membership_inference(SAME, made)
    assert report is not None
    assert report.attack_auc is None
    assert report.auc is None
    assert report.fitted_on == 2
    for name, data in (("forget", none), ("retain", none), ("retain_test", none), ("retain_test", other)):
        assert membership_inference(SAME, SimpleNamespace(**{**vars(made), name: data})) is None


def test_saturated_logits_leave_the_attack_finite() -> None:
    made = task(3.0)
    made.retain = TensorDataset(made.retain.tensors[0] * 1e4, made.retain.tensors[1])
    report = membership_inference(SAME, made)
    assert report is not None
    assert math.isfinite(report.auc)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"features": "los"}, "expected features to be one of .*, but got 'los'; did you mean 'loss'"),
        ({"features": ()}, "expected features to name one or more of .*, but got none"),
        ({"attack": "logistics"}, "expected attack to be one of .*did you mean 'logistic'"),
        ({"limit": 0}, "expected limit to be at least 1, but got 0"),
    ],
)
def test_unknown_options_are_refused(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        membership_inference(SAME, task(1.0), **options)


def test_rates_of_nothing_are_n_a() -> None:
    none, some = torch.zeros(0), torch.zeros(3)
    assert probability_smaller(none, some) is probability_smaller(some, none) is None
    assert true_positive_rate(none, some) is true_positive_rate(some, none) is None


def test_the_share_is_told_with_the_attack_s_own_auc() -> None:
    report = MembershipReport(0.25, 0.5, 0.0, 0.625, 0.1, 10, "logistic", ("loss",))
    assert str(report) == "0.250 of the forget set called members, by an attack whose own AUC is 0.625"
    assert "AUC is n/a" in str(replace(report, attack_auc=None))
