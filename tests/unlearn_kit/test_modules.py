"""Copies, modes and heads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearn_kit.heads import declare_head, head_name, head_parameters
from unlearn_kit.models import with_normalization
from unlearn_kit.modules import batch_norms, check_model, cpu_state, device_of, evaluating, frozen_copy


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2, 2)
    )


class Forwarding(nn.Module):
    """A wrapper that answers for the model inside, as those of adapter libraries do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def test_the_device_is_that_of_the_first_tensor():
    assert device_of(nn.Linear(2, 2, device="meta")).type == "meta"
    assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")).type == "meta"
    assert device_of(nn.ReLU()).type == "cpu"


def test_a_frozen_copy_shares_nothing_and_takes_no_gradient():
    model = network().train()
    copy = frozen_copy(model)
    assert not any(module.training for module in copy.modules())
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor += 1
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), copy.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(model.buffers(), copy.buffers(), strict=True))


def test_evaluating_gives_each_module_its_own_mode_back():
    model = network().train()
    model[1].eval()
    with evaluating(model) as same:
        assert same is model
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert model.training


class Ranging(nn.Module):
    """Writes into one buffer and puts another in the place of one, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.largest = torch.maximum(self.largest, x.max())
        return x


def test_evaluating_gives_buffers_back_that_a_network_writes_into():
    model = nn.Sequential(nn.Flatten(), Ranging(), nn.Linear(4, 3))
    own = dict(model.named_buffers())
    with evaluating(model):
        model(torch.rand(5, 4))
        assert model[1].calls == 1
    assert {name: (id(b), float(b)) for name, b in model.named_buffers()} == {n: (id(b), 0.0) for n, b in own.items()}


def test_evaluating_gives_the_modes_back_after_an_error():
    model = network().train()
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert all(module.training for module in model.modules())


def test_batch_norms_of_every_dimension_are_found():
    layers = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)]
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(*layers), nn.LayerNorm(2), nn.GroupNorm(1, 2))
    assert batch_norms(model) == layers


def test_cpu_state_is_a_copy():
    model = network()
    state = cpu_state(model)
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor += 1
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert not any(tensor.requires_grad for tensor in state.values())


def test_a_finite_model_passes_and_the_tensor_that_is_not_is_named():
    model = network()
    assert check_model(model) is model
    model[1].running_var[0] = float("nan")
    with pytest.raises(ValueError, match=r"expected teacher's '1.running_var' to be finite, but got 1 NaN"):
        check_model(model, "teacher")


@pytest.mark.parametrize("model", [None, "resnet", network])
def test_what_is_no_module_is_no_model(model):
    with pytest.raises(TypeError, match=f"^expected model to be a torch.nn.Module, but got {type(model).__name__}$"):
        check_model(model)


def test_a_declared_head_is_found_through_wrappers():
    model = declare_head(network(), "5")
    assert head_name(model) == "5"
    assert head_parameters(model) == ["5.weight", "5.bias"]
    assert head_name(with_normalization(model, 0.5, 0.2)) == "network.5"
    assert head_name(frozen_copy(model)) == "5"


def test_a_wrapper_that_forwards_attributes_does_not_claim_the_head():
    wrapped = Forwarding(declare_head(network(), "5"))
    assert head_name(wrapped) == "inner.5"
    assert head_parameters(wrapped) == ["inner.5.weight", "inner.5.bias"]
    assert all(name in dict(wrapped.named_parameters()) for name in head_parameters(wrapped))


def test_the_head_named_1_is_not_that_named_10():
    model = declare_head(nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(11))), "1")
    assert head_parameters(model) == ["1.weight"]


def test_an_unknown_or_undeclared_head_is_refused():
    with pytest.raises(ValueError, match=r"expected head to be a submodule of Sequential, one of .*, but got 'fc'"):
        declare_head(network(), "fc")
    with pytest.raises(ValueError, match=r"Sequential does not declare .* call unlearn_kit.models.declare_head"):
        head_name(network().append(nn.Softmax(1)))
