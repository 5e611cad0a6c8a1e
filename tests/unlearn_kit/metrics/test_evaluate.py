from __future__ import annotations

import copy
import json
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit.metrics import Evaluation, accuracy, class_matched, evaluate, evaluate_seeds, per_class_accuracy
from unlearn_kit.metrics.evaluate import split_score

SPLITS = ("forget", "retain", "forget_test", "retain_test")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labelled(seed: int, n: int, classes: tuple[int, ...] = (0, 1, 2)) -> TensorDataset:
    y = torch.tensor(classes)[torch.randint(len(classes), (n,), generator=rng(seed))]
    return TensorDataset(2 * nn.functional.one_hot(y, 3) + torch.randn(n, 3, generator=rng(seed + 50)), y)


def masks(seed: int, n: int, channels: int = 1) -> TensorDataset:
    y = torch.randint(max(channels, 2), (n, 5, 6), generator=rng(seed))
    z = torch.randn(n, channels, 5, 6, generator=rng(seed + 50))
    return TensorDataset(z, y[:, None].float() if channels == 1 else y)


@pytest.fixture
def class_task() -> SimpleNamespace:
    return SimpleNamespace(
        forget=labelled(0, 30, (0,)),
        retain=labelled(1, 80, (1, 2)),
        forget_test=labelled(2, 20, (0,)),
        retain_test=labelled(3, 41, (1, 2)),
        num_classes=3,
        kind="classification",
        forget_classes=(),
    )


@pytest.fixture
def random_task() -> SimpleNamespace:
    return SimpleNamespace(
        forget=labelled(4, 30),
        retain=labelled(5, 80),
        forget_test=labelled(6, 0),
        retain_test=labelled(7, 50),
        num_classes=3,
        kind="classification",
        forget_classes=(),
    )


@pytest.fixture
def mask_task() -> SimpleNamespace:
    return SimpleNamespace(
        forget=masks(0, 5),
        retain=masks(1, 9),
        forget_test=masks(2, 0),
        retain_test=masks(3, 7),
        num_classes=2,
        kind="segmentation",
        forget_classes=(),
    )


def guesses(data: TensorDataset) -> tuple[np.ndarray, np.ndarray]:
    z, y = data.tensors
    return y.numpy(), z.numpy().argmax(axis=1)


def losses(data: TensorDataset) -> np.ndarray:
    z, y = data.tensors
    return nn.functional.cross_entropy(z.double(), y, reduction="none").numpy()


def auc(members: np.ndarray, others: np.ndarray) -> float:
    return roc_auc_score([1] * len(members) + [0] * len(others), -np.concatenate([members, others]))


def test_class_forgetting_agrees_with_scikit_learn(class_task: SimpleNamespace) -> None:
    found = evaluate(nn.Identity(), class_task, batch_size=16)
    for name in SPLITS:
        assert getattr(found, name) == pytest.approx(accuracy_score(*guesses(getattr(class_task, name))))
        assert found.sizes[name] == len(getattr(class_task, name))
    truth, guess = (
        np.concatenate(parts)
        for parts in zip(guesses(class_task.forget_test), guesses(class_task.retain_test), strict=True)
    )
    assert found.test == pytest.approx(accuracy_score(truth, guess))
    assert found.per_class == pytest.approx({c: accuracy_score(truth[truth == c], guess[truth == c]) for c in range(3)})
    assert found.membership == pytest.approx(auc(losses(class_task.forget), losses(class_task.forget_test)))
    assert found.kind == "classification"
    assert found.dice is None


def test_the_figures_are_those_of_the_single_metrics(class_task: SimpleNamespace) -> None:
    found = evaluate(nn.Identity(), class_task)
    assert found.forget == accuracy(nn.Identity(), class_task.forget)
    only = replace_split(class_task, forget_test=labelled(2, 0))
    assert evaluate(nn.Identity(), only).per_class == per_class_accuracy(nn.Identity(), class_task.retain_test)


def replace_split(task: SimpleNamespace, **splits: TensorDataset) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(task), **splits})


def test_random_forgetting_compares_with_a_class_matched_part_of_retain_test(
    random_task: SimpleNamespace,
) -> None:
    found = evaluate(nn.Identity(), random_task, seed=5)
    assert found.forget_test is None
    assert found.test == found.retain_test
    matched = class_matched(random_task.forget.tensors[1], random_task.retain_test.tensors[1], 5).numpy()
    expected = auc(losses(random_task.forget), losses(random_task.retain_test)[matched])
    assert found.membership == pytest.approx(expected)


def test_a_missed_object_scores_nothing_whatever_classes_are_absent(mask_task: SimpleNamespace) -> None:
    y = torch.zeros(2, 4, 4, dtype=torch.int64)
    y[:, :2, :2] = 3
    nothing = TensorDataset(nn.functional.one_hot(torch.zeros_like(y), 5).movedim(-1, 1).float(), y)
    found = evaluate(
        nn.Identity(), replace_split(mask_task, forget=nothing, retain=nothing, retain_test=nothing, num_classes=5)
    )
    assert found.forget == found.retain == found.test == found.dice["forget"] == found.dice["test"] == 0
    assert [found.per_class[label] for label in range(1, 5)] == [1, 1, 0, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_segmentation_agrees_with_scikit_learn_image_by_image(mask_task: SimpleNamespace, channels: int) -> None:
    task = SimpleNamespace(
        **{name: masks(seed, n, channels) for seed, (name, n) in enumerate(zip(SPLITS, (5, 9, 0, 7), strict=True))},
        num_classes=max(channels, 2),
        kind="segmentation",
        forget_classes=(),
    )
    found = evaluate(nn.Identity(), task, batch_size=2)
    foreground = list(range(1, max(channels, 2)))

    def mean(name: str, oracle) -> float:
        z, y = getattr(task, name).tensors
        guess = (z[:, 0] > 0).long() if channels == 1 else z.argmax(dim=1)
        pairs = zip(y.reshape(guess.shape).numpy(), guess.numpy(), strict=True)
        images = [
            oracle(a.ravel().astype(int), b.ravel(), labels=foreground, average="macro", zero_division=1.0)
            for a, b in pairs
        ]
        return float(np.mean(images))

    assert found.dice is not None
    for name in ("forget", "retain", "retain_test"):
        assert getattr(found, name) == pytest.approx(mean(name, jaccard_score))
        assert found.dice[name] == pytest.approx(mean(name, f1_score))
    assert found.forget_test is found.dice["forget_test"] is None
    assert found.dice["test"] == found.dice["retain_test"]
    assert found.per_class is not None
    assert found.test == pytest.approx(np.mean([found.per_class[c] for c in foreground]))


def test_membership_of_masks_is_by_mean_pixel_loss(mask_task: SimpleNamespace) -> None:
    def per_image(data: TensorDataset) -> np.ndarray:
        z, y = data.tensors
        loss = nn.functional.binary_cross_entropy_with_logits(z.double(), y.double(), reduction="none")
        return loss.mean(dim=(1, 2, 3)).numpy()

    found = evaluate(nn.Identity(), mask_task)
    assert found.membership == pytest.approx(auc(per_image(mask_task.forget), per_image(mask_task.retain_test)))


class Weaker(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, dims=1) * 0.5 + x


def test_distances_to_the_reference_by_definition(class_task: SimpleNamespace) -> None:
    found = evaluate(Weaker(), class_task, nn.Identity())
    other = found.reference
    assert other is not None
    gaps = {name: abs(getattr(found, name) - getattr(other, name)) for name in (*SPLITS, "membership")}
    four = [gaps[name] for name in ("forget", "retain", "retain_test", "membership")]
    assert found.average_gap == pytest.approx(sum(four) / 4)
    kept = (1 - gaps["retain"]) * (1 - gaps["retain_test"])
    assert found.tug_of_war == pytest.approx((1 - gaps["forget"]) * kept)
    assert found.tug_of_war_mia == pytest.approx((1 - gaps["membership"]) * kept)
    assert gaps["forget"] > 0


def test_the_reference_beside_itself_is_ideal(random_task: SimpleNamespace) -> None:
    found = evaluate(nn.Identity(), random_task, nn.Identity())
    assert (found.average_gap, found.tug_of_war, found.tug_of_war_mia) == (0, 1, 1)


def test_an_evaluation_stands_in_for_the_reference(class_task: SimpleNamespace) -> None:
    reference = evaluate(nn.Identity(), class_task)
    assert evaluate(Weaker(), class_task, reference) == evaluate(Weaker(), class_task, nn.Identity())
    assert reference.average_gap is reference.reference is None


def test_several_references_give_the_resolution_of_the_distances(class_task: SimpleNamespace) -> None:
    references = [nn.Identity(), nn.Linear(3, 3), Weaker()]
    found = evaluate(Weaker(), class_task, references)
    alone = [evaluate(one, class_task, references[0]) for one in (Weaker(), *references[1:])]
    assert replace(found, resolution=None) == alone[0]
    assert found.resolution == max(one.average_gap for one in alone[1:])
    assert evaluate(Weaker(), class_task, references[:1]).resolution is None
    with pytest.raises(ValueError, match="expected reference to hold at least one model, but got none"):
        evaluate(Weaker(), class_task, [])


def test_a_reference_of_other_data_is_refused(class_task: SimpleNamespace, random_task: SimpleNamespace) -> None:
    reference = evaluate(nn.Identity(), random_task)
    with pytest.raises(ValueError, match=r"evaluation of the same task, classification of .*'forget': 30.*but got"):
        evaluate(nn.Identity(), class_task, reference)
    same = replace(evaluate(nn.Identity(), class_task), kind="segmentation")
    with pytest.raises(ValueError, match="but got segmentation of"):
        evaluate(nn.Identity(), class_task, same)
    with pytest.raises(TypeError, match=r"expected reference to be a .*, an Evaluation or a sequence .*, but got dict"):
        evaluate(nn.Identity(), class_task, {})


def test_as_dict_survives_json(class_task: SimpleNamespace, mask_task: SimpleNamespace) -> None:
    for task in (class_task, mask_task):
        found = evaluate(Weaker(), task, nn.Identity())
        plain = found.as_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert plain["forget"] == found.forget
        assert plain["reference"]["forget"] == found.reference.forget
    assert plain["forget_test"] is None


def test_nothing_is_n_a(class_task: SimpleNamespace) -> None:
    empty = labelled(0, 0)
    task = replace_split(class_task, **dict.fromkeys(SPLITS, empty))
    found = evaluate(nn.Identity(), task, nn.Identity())
    assert set(found.sizes.values()) == {0}
    missing = ("test", "membership", "per_class", "average_gap", "tug_of_war", "tug_of_war_mia")
    assert all(getattr(found, name) is None for name in (*SPLITS, *missing))
    held_out_only = replace_split(class_task, forget=empty)
    assert evaluate(nn.Identity(), held_out_only).membership is None
    no_held_out = replace_split(class_task, forget_test=empty, retain_test=empty)
    assert evaluate(nn.Identity(), no_held_out).membership is None


def test_a_class_without_held_out_samples_is_n_a(class_task: SimpleNamespace) -> None:
    found = evaluate(nn.Identity(), replace_split(class_task, forget_test=labelled(0, 0)))
    assert found.per_class is not None
    assert found.per_class[0] is None
    # No held-out image shares a class with the forget set, so there is nothing to compare it with.
    assert found.membership is None


def test_one_sample_a_split_with_saturated_logits() -> None:
    one = TensorDataset(torch.tensor([[1e4, -1e4]]), torch.tensor([0]))
    two = TensorDataset(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))
    task = SimpleNamespace(
        forget=two, retain=one, forget_test=two, retain_test=one, num_classes=2, kind="classification"
    )
    found = evaluate(nn.Identity(), task)
    assert (found.forget, found.retain, found.test, found.membership) == (0.0, 1.0, 0.5, 0.5)


@pytest.mark.parametrize("split", SPLITS)
def test_nan_in_any_split_is_refused(class_task: SimpleNamespace, split: str) -> None:
    bad = TensorDataset(torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected logits to be finite"):
        evaluate(nn.Identity(), replace_split(class_task, **{split: bad}))


def test_model_modes_and_random_states_are_untouched(class_task: SimpleNamespace) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).train()
    model[1].eval()
    modes, before = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = evaluate(model, class_task, nn.Identity())
    assert first == evaluate(model, class_task, nn.Identity(), batch_size=7)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


class Counter(nn.Module):
    """Passes its inputs on, and counts them."""

    rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return x


def test_every_sample_is_read_once(class_task: SimpleNamespace) -> None:
    model = Counter()
    evaluate(model, class_task, evaluate(nn.Identity(), class_task))
    assert model.rows == sum(len(getattr(class_task, name)) for name in SPLITS)


@pytest.mark.parametrize("name", ["class_task", "random_task", "mask_task"])
def test_several_seeds_are_had_from_one_reading_with_the_bits_of_each_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    task, model, reference, seeds = request.getfixturevalue(name), Counter(), Weaker(), (3, 0, 7)
    found = evaluate_seeds(model, task, reference, seeds=seeds)
    assert model.rows == sum(len(getattr(task, split)) for split in SPLITS)
    assert list(found) == list(seeds)
    for seed in seeds:
        assert found[seed] == evaluate(nn.Identity(), task, reference, seed=seed)
    if name == "random_task":  # else no seed would be missed
        assert len({one.membership for one in found.values()}) == len(seeds)


def test_a_seed_without_the_reference_has_no_distances(random_task: SimpleNamespace) -> None:
    theirs = evaluate_seeds(nn.Identity(), random_task, seeds=(0,))
    found = evaluate_seeds(Weaker(), random_task, theirs, seeds=(0, 1))
    assert found[0] == evaluate(Weaker(), random_task, theirs[0], seed=0)
    assert found[1] == evaluate(Weaker(), random_task, seed=1)
    with pytest.raises(TypeError, match=r"expected reference\[0\] to be an Evaluation, but got str"):
        evaluate_seeds(Weaker(), random_task, {0: "none"}, seeds=(0,))  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"expected reference to be a torch.nn.Module or a mapping, but got Evaluation"):
        evaluate_seeds(Weaker(), random_task, theirs[0], seeds=(0,))  # type: ignore[arg-type]


def test_an_evaluation_is_frozen(class_task: SimpleNamespace) -> None:
    found = evaluate(nn.Identity(), class_task)
    assert isinstance(found, Evaluation)
    with pytest.raises(FrozenInstanceError):
        found.forget = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_a_model_of_other_classes_than_the_task_is_refused(class_task: SimpleNamespace, outputs: int) -> None:
    message = "expected model to have 3 outputs, one a class of the task, but got outputs of shape"
    for score in (evaluate, lambda model, task: split_score(model, task, "retain_test")):
        with pytest.raises(ValueError, match=message):
            score(nn.Linear(3, outputs), class_task)
