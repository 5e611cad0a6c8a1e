from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from unlearn_kit.metrics.predict import class_labels, class_logits, map_batches, mean_score, predict


class Rows(Dataset):
    """Map-style data that only the DataLoader can read, with a transform that draws random numbers."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3,), float(index)) + 0 * torch.rand(3) + 0 * float(np.random.rand()), index % 2  # noqa: NPY002


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_every_sample_once_in_order_with_the_last_batch(batch_size: int) -> None:
    logits, targets = predict(nn.Identity(), Rows(11), batch_size=batch_size)
    assert logits[:, 0].tolist() == list(range(11))
    assert targets.tolist() == [i % 2 for i in range(11)]


class Jittered(Rows):
    """Sample i is i plus noise of all three random states."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.tensor([torch.rand(()).item(), float(np.random.rand()), random.random()])  # noqa: NPY002
        return index + noise, index % 2


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(11))], ids=["bare", "subset"])
def test_random_transforms_draw_the_same_whoever_reads(wrap) -> None:
    first, _ = predict(nn.Identity(), wrap(Jittered(11)))
    noise = first - torch.arange(11.0)[:, None]
    assert len(noise.unique()) == noise.numel(), "every sample draws numbers of its own"
    for reading in ({"batch_size": 4}, {"workers": 2, "batch_size": 4}, {"workers": 1}):
        assert torch.equal(predict(nn.Identity(), wrap(Jittered(11)), **reading)[0], first)


class AlwaysDropping(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x + 1, 0.5, training=True)


def test_a_layer_that_always_drops_out_draws_the_same_whoever_reads() -> None:
    first, _ = predict(AlwaysDropping(), Jittered(11), batch_size=4)
    assert 0 < (first == 0).sum() < first.numel()
    assert torch.equal(predict(AlwaysDropping(), Jittered(11), batch_size=4, workers=1)[0], first)


def test_predict_leaves_modes_state_gradients_and_random_states_alone() -> None:
    model = network().train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, _ = predict(model, Rows(9), batch_size=4)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert not first.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = copy.deepcopy(model).eval()(torch.stack([Rows(9)[i][0] for i in range(9)]))
    torch.testing.assert_close(first, expected.detach())


def test_modes_come_back_when_the_model_fails() -> None:
    model = network().train()
    with pytest.raises(ValueError, match=r"expected the model to run in eval mode .* shapes cannot be multiplied"):
        predict(model, TensorDataset(torch.zeros(2, 5), torch.zeros(2)))
    assert all(module.training for module in model.modules())


def test_a_device_without_numbers_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="expected device to hold numbers, but got 'meta'"):
        predict(model, Rows(2), device="meta")
    assert next(model.parameters()).device.type == "cpu"


def test_empty_data_give_empty_tensors() -> None:
    logits, targets = predict(nn.Identity(), Rows(0))
    assert len(logits) == len(targets) == 0
    assert map_batches([nn.Identity()], Rows(0), lambda *outputs: outputs) is None
    assert mean_score([nn.Identity()], Rows(0), lambda *outputs: outputs[0]) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_logits_are_refused(bad: float) -> None:
    inputs = torch.zeros(5, 2)
    inputs[4, 1] = bad
    with pytest.raises(ValueError, match="expected logits to be finite, but got 1 NaN or infinite of 2 values"):
        predict(nn.Identity(), TensorDataset(inputs, torch.zeros(5)), batch_size=4)


class Fixed(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "error", "text"),
    [
        (
            {"out": 1},
            ValueError,
            r"expected the model to return logits \(B, C, ...\), but got dict",
        ),
        (torch.zeros(3), ValueError, r"expected logits \(B, C, ...\) with B = 3, but got shape \(3,\)"),
        (torch.zeros(1, 2), ValueError, r"with B = 3, but got shape \(1, 2\)"),
    ],
)
def test_what_is_no_batch_of_logits_is_refused(output: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        predict(Fixed(output), Rows(3))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected model to be a torch.nn.Module, but got function"):
        predict(lambda x: x, Rows(3))


def test_class_labels_of_every_layout() -> None:
    mask = torch.tensor([[[0.0, 1.0]]])
    assert class_labels(torch.zeros(1, 1, 1, 2), mask[:, None]).tolist() == [[[0, 1]]]
    assert class_labels(torch.zeros(1, 1, 1, 2), mask).tolist() == [[[0, 1]]]
    assert class_labels(torch.zeros(1, 2, 1, 2), mask[:, None]).tolist() == [[[0, 1]]]
    assert class_labels(torch.zeros(2, 3), torch.tensor([2, 0], dtype=torch.uint8)).dtype == torch.int64
    assert class_labels(torch.zeros(2, 1), torch.tensor([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("logits", "targets", "text"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"class indices in 0..2, but got 0..3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), r"class indices in 0..2, but got -1..0"),
        (torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 255.0), r"class indices in 0..1, but got 255.0"),
        (torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), torch.nan), r"class indices in 0..1, but got nan"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3),
            r"targets of shape \(2,\) for logits of shape \(2, 3\), but got \(2, 3\)",
        ),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2), r"targets of shape \(2, 4, 4\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(logits: torch.Tensor, targets: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        class_labels(logits, targets)


def test_a_single_logit_is_two_classes_of_equal_probabilities() -> None:
    z = torch.tensor([[-2.0], [0.5]])
    torch.testing.assert_close(class_logits(z).softmax(dim=1)[:, 1:], z.double().sigmoid())
