"""Networks that return more than a tensor, in any precision and any wrapper: right, or refused before anything runs."""

# ruff: noqa: ARG005 - what networks return shares a signature

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from algorithms import finetune, influence, jit, neg_grad_plus, perturbed_sign, salun, scrub, ssd
from unlearn_kit import UnlearnTask, adapters, audits, composition, metrics, models
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.checkpoints import load_model, save_model
from unlearn_kit.engine import FitResult, Phase, fit, train
from unlearn_kit.gradients import mean_squared_gradients
from unlearn_kit.losses import cross_entropy
from unlearn_kit.modules import check_model, same_state

SOURCE = torch.Generator().manual_seed(0)
LABELS = torch.arange(24) % 3
INPUTS = torch.rand(24, 1, 5, 5, generator=SOURCE) * 0.5
INPUTS[torch.arange(24), :, LABELS] += 0.4
DATA = TensorDataset(INPUTS, LABELS)
TASK = UnlearnTask.forget_class(DATA, DATA, 0)
OPTIONS = {"steps": 3, "batch_size": 5}


class Logits(NamedTuple):
    logits: Tensor
    auxiliary: Tensor


class Net(nn.Module):
    """Two layers, and a function of the logits, the features and the mode that says what is returned."""

    def __init__(self, returns: Callable[[Tensor, Tensor, bool], Any] = lambda z, h, training: z) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.body, self.head = nn.Linear(25, 7), nn.Linear(7, 3)
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        h = self.body(x.flatten(1)).relu()
        return self.returns(self.head(h), h, self.training)


PLAIN = Net()
OTHER = train(PLAIN, DATA, epochs=1).model.eval()
# What networks return, what is to be declared of it (None: it is found), in both modes.
RETURNS: dict[str, tuple[Callable[[Tensor, Tensor, bool], Any], Any]] = {
    "out": (lambda z, h, _: OrderedDict(out=z, aux=2 * z), None),
    "logits": (lambda z, h, _: {"features": h, "logits": z}, None),
    "single": (lambda z, h, _: (z,), None),
    "with a scalar": (lambda z, h, _: (z, h.mean()), None),
    "alike": (lambda z, h, _: [z, 2 * z], None),
    "named tuple": (lambda z, h, _: Logits(z, 2 * z), None),
    "auxiliary in training": (lambda z, h, training: (z, h) if training else z, None),
    "second in training": (lambda z, h, training: (h, z) if training else z, None),
    "key": (lambda z, h, _: {"y": z, "logits": h}, "y"),
    "attribute": (lambda z, h, _: SimpleNamespace(y=z), "y"),
    "place": (lambda z, h, _: (h, z), 1),
    "function": (lambda z, h, _: {"head": [h, z]}, lambda returned: returned["head"][1]),
}


@pytest.mark.parametrize("name", RETURNS)
def test_logits_are_found_or_declared_for_training_and_metrics_alike(name: str) -> None:
    returns, output = RETURNS[name]
    model = Net(returns)
    if output is not None:
        assert models.with_output(model, output) is model
    model.eval()
    kind = type(model(INPUTS))

    trained = train(model, DATA, epochs=2, batch_size=5).model
    assert same_state(trained, train(PLAIN, DATA, epochs=2, batch_size=5).model)
    for method in (finetune, neg_grad_plus):
        revised = method(model, TASK, **OPTIONS).model
        assert same_state(revised, method(PLAIN, TASK, **OPTIONS).model)
        assert type(revised(INPUTS)) is kind
        assert not revised._forward_hooks
        assert not revised._forward_pre_hooks
    assert same_state(ssd(model, TASK, alpha=1.0).model, ssd(PLAIN, TASK, alpha=1.0).model)

    plain = copy.deepcopy(PLAIN).eval()
    assert metrics.evaluate(model, TASK, plain).as_dict() == metrics.evaluate(plain, TASK, plain).as_dict()
    assert metrics.js_divergence(model, plain, DATA) == 0
    found, expected = (PerturbedSign(0.1).search(m, INPUTS, LABELS).inputs for m in (model, plain))
    assert torch.equal(found, expected)
    settings = {"original": 1.0, "max_steps": 5}
    assert audits.relearn_time(model, TASK, **settings) == audits.relearn_time(plain, TASK, **settings)
    moved = [composition.barrier_bound(m, trained, DATA, points=3, slopes=3).losses for m in (model, trained)]
    assert moved[0][-1] == moved[1][-1] > 0
    assert type(model(INPUTS)) is kind
    assert not model._forward_hooks
    assert same_state(model, Net(returns))


def test_an_ensemble_takes_the_logits_too() -> None:
    def build() -> nn.Module:
        return Net(RETURNS["out"][0])

    for mode in ("vmap", "sequential"):
        both = [
            audits.train_ensemble(made, DATA, [range(9)] * 2, seeds=[0, 1], epochs=1, mode=mode)
            for made in (build, Net)
        ]
        assert torch.equal(both[0].outputs(DATA), both[1].outputs(DATA))


@pytest.mark.parametrize(
    ("returns", "output", "text"),
    [
        (lambda z, h, _: (h, z), None, r"got tuple\(float32 \(1, 7\), float32 \(1, 3\)\); models.with_output"),
        (lambda z, h, _: {"y": z}, None, r"got dict\('y': float32 \(1, 3\)\)"),
        (lambda z, h, _: {"y": z}, "x", r"'y': float32 .* where models.with_output declares 'x'"),
        (lambda z, h, _: (z,), 3, "declares 3"),
        (lambda z, h, _: None, None, "got NoneType"),
        (lambda z, h, training: z[:, None] if training else z, None, "of one shape in both modes"),
        (lambda z, h, _: z.detach(), None, "no gradient reaches those"),
        (lambda z, h, training: z.no() if training else z, None, "expected the model to run in training mode"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_before_anything_is_trained(returns: Any, output: Any, text: str) -> None:
    model = Net(returns)
    if output is not None:
        models.with_output(model, output)
    before = copy.deepcopy(model.state_dict())
    steps: list[int] = []
    with pytest.raises(ValueError, match=text):
        fit(model, Phase(cross_entropy(on="train"), {"train": DATA}, steps=1, before=lambda _: steps.append(1)))
    with pytest.raises(ValueError, match=text):
        finetune(model, TASK, **OPTIONS)
    assert steps == []
    assert not model._forward_hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("output", [True, None, 1.5])
def test_with_output_refuses_what_is_no_place(output: Any) -> None:
    with pytest.raises(TypeError, match="expected output to be a str, an int or a function"):
        models.with_output(Net(), output)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_and_data_of_any_precision(dtype: torch.dtype) -> None:
    model = Net().to(dtype).eval()
    trained = train(model, DATA, epochs=2, batch_size=5)
    assert {value.dtype for value in trained.model.state_dict().values()} == {dtype}
    # Steps are taken in float32 and rounded once.
    start = Net().to(dtype)
    expected = train(start.to(torch.promote_types(dtype, torch.float32)), DATA, epochs=2, batch_size=5).model.to(dtype)
    assert same_state(trained.model, expected)
    assert torch.isfinite(torch.tensor([record["total"] for record in trained.history])).all()
    for method in (finetune, salun):
        revised = method(model, TASK, **OPTIONS).model
        assert {value.dtype for value in revised.state_dict().values()} == {dtype}
    assert metrics.accuracy(trained.model, DATA) is not None
    logits, _ = metrics.predict(model, DATA)
    assert logits.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)

    other = TensorDataset(INPUTS.to(dtype), LABELS)
    widened = TensorDataset(INPUTS.to(dtype).float(), LABELS)
    found, expected = (train(Net(), data, epochs=1, batch_size=5).model for data in (other, widened))
    assert same_state(found, expected)
    assert metrics.accuracy(found, other) == metrics.accuracy(found, widened)


def test_images_of_bytes_are_refused_with_the_remedy() -> None:
    images = TensorDataset((INPUTS * 255).byte(), LABELS)
    for call in (
        lambda: train(Net(), images, epochs=1),
        lambda: UnlearnTask.forget_class(images, images, 0),
        lambda: metrics.accuracy(Net(), images),
    ):
        with pytest.raises(TypeError, match=r"to be floating point in \[0, 1\], .*uint8; .*data.TensorImages"):
            call()


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone, which ``DistributedDataParallel`` needs."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("wrapper", [torch.compile, nn.DataParallel, nn.parallel.DistributedDataParallel])
def test_wrappers_are_seen_through(wrapper, tmp_path) -> None:
    plain = copy.deepcopy(PLAIN).eval()
    model = wrapper(copy.deepcopy(plain)).eval()
    assert check_model(model) is check_model(check_model(model))
    for method in (finetune, ssd):
        options = OPTIONS if method is finetune else {"alpha": 1.0}
        revised = method(model, TASK, **options).model
        assert type(revised) is Net
        assert same_state(revised, method(plain, TASK, **options).model)
    assert same_state(train(model, DATA, epochs=1).model, train(plain, DATA, epochs=1).model)
    assert metrics.evaluate(model, TASK, plain).average_gap == 0
    assert metrics.layerwise_distance(model, plain).total == 0
    assert metrics.feature_distance(model, plain, DATA) == metrics.feature_distance(plain, plain, DATA)
    relearning = {"original": 1.0, "max_steps": 1, "every": 1}
    assert audits.relearn_time(model, TASK, **relearning) == audits.relearn_time(plain, TASK, **relearning)
    for merged in (
        composition.interpolate(model, OTHER, 0.5),
        composition.interpolate(OTHER, model, 0.5),
        composition.task_arithmetic(model, [OTHER], 0.5),
    ):
        assert same_state(merged, composition.interpolate(plain, OTHER, 0.5))
    assert same_state(composition.swap_head(model, OTHER, "head"), composition.swap_head(plain, OTHER, "head"))
    adapted = adapters.attach(model, "all", rank=1)
    assert adapted.state_dict().keys() == adapters.attach(plain, "all", rank=1).state_dict().keys()
    path = save_model(model, tmp_path / "a.safetensors")
    assert same_state(load_model(Net(), path), plain)
    assert same_state(check_model(load_model(model, save_model(OTHER, path))), OTHER)


class Writing(Net):
    """Normalises its inputs in place."""

    def forward(self, x: Tensor) -> Any:
        x -= 0.1
        x *= 2
        return super().forward(x)


class Reading(Net):
    """Normalises its inputs."""

    def forward(self, x: Tensor) -> Any:
        return super().forward((x - 0.1) * 2)


def test_a_network_that_writes_into_its_inputs_gives_the_same_as_one_that_does_not() -> None:
    before = INPUTS.clone()
    for method, options in (
        (finetune, OPTIONS),
        (ssd, {"alpha": 1.0}),
        (salun, OPTIONS),
        (jit, {"draws": 2}),
        (perturbed_sign, {"steps": 2}),
        (scrub, {"epochs": 2, "msteps": 1}),
        (influence, {"iterations": 2}),
    ):
        assert same_state(method(Writing(), TASK, **options).model, method(Reading(), TASK, **options).model)
    assert metrics.evaluate(Writing(), TASK) == metrics.evaluate(Reading(), TASK)
    assert torch.equal(INPUTS, before)


class Asserting(Net):
    def forward(self, x: Tensor) -> Any:
        assert x.shape[-1] == 7, "expected images of 7 x 7"
        return super().forward(x)


def test_a_network_that_asserts_is_told_as_one_that_raises() -> None:
    for call in (lambda: finetune(Asserting(), TASK), lambda: metrics.evaluate(Asserting(), TASK)):
        with pytest.raises(ValueError, match=r"to run in eval mode on inputs .*AssertionError\('expected images of 7"):
            call()


@pytest.mark.parametrize("returns", [lambda z, h, _: z.argmax(1), lambda z, h, _: z + 0j])
def test_what_is_no_floating_point_is_no_logits(returns) -> None:
    for call in (lambda: finetune(Net(returns), TASK), lambda: metrics.evaluate(Net(returns), TASK)):
        with pytest.raises(ValueError, match=r"logits in floating point, but got (int64|complex64)"):
            call()


class Keeping(Net):
    """Keeps activations as attributes, as networks do that others look into."""

    def forward(self, x: Tensor) -> Tensor:
        self.feature = self.body(x.flatten(1)).relu()
        self.kept = {"all": [self.feature]}
        return self.head(self.feature)


def test_a_network_that_keeps_activations_is_revised_twice() -> None:
    model = Keeping()
    model(INPUTS)  # With a graph, which cannot be copied.
    first = finetune(model, TASK, **OPTIONS).model
    assert not first.feature.requires_grad
    assert not first.kept["all"][0].requires_grad
    second = finetune(copy.deepcopy(first), TASK, **OPTIONS).model
    assert same_state(second, finetune(finetune(PLAIN, TASK, **OPTIONS).model, TASK, **OPTIONS).model)
    assert model.feature.requires_grad


def test_gradients_of_single_samples_leave_nothing_in_a_network_that_keeps_activations() -> None:
    model = Keeping()
    for _ in range(2):  # What torch.func leaves behind can neither be used nor copied.
        found = ssd(model, TASK, alpha=1.0).model
        assert same_state(found, ssd(PLAIN, TASK, alpha=1.0).model)
        mean_squared_gradients(model, [(INPUTS, LABELS)])
        assert not hasattr(model, "feature")


def test_masks_of_another_size_than_the_outputs_are_refused_and_a_function_brings_these_to_size() -> None:
    data = TensorDataset(torch.rand(6, 1, 8, 8, generator=SOURCE), torch.arange(6 * 64).view(6, 8, 8) % 3)
    task = UnlearnTask.forget_samples(data, data, [0, 1], num_classes=3)
    small = nn.Conv2d(1, 3, 2, stride=2)
    for method in (finetune, ssd):
        with pytest.raises(ValueError, match=r"of shape \(1, 8, 8\), but got outputs of shape \(1, 3, 4, 4\); models"):
            method(small, task)
    models.with_output(small, lambda z: nn.functional.interpolate(z, scale_factor=2))
    assert finetune(small, task, steps=1, batch_size=3).model(torch.rand(1, 1, 8, 8)).shape == (1, 3, 4, 4)
    assert metrics.evaluate(small, task).dice is not None


def lone(batch_norm: str = "update", count: int = 21, size: int = 5) -> FitResult:
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    data = TensorDataset(INPUTS[:count], LABELS[:count])
    phase = Phase(cross_entropy(on="train"), {"train": data}, epochs=1, batch_size=size, batch_norm=batch_norm)  # type: ignore[arg-type]
    return fit(network, phase)


def test_a_leftover_batch_of_one_is_refused_at_once_where_batch_norm_trains() -> None:
    text = r"expected batch_size to leave no batch of a single sample .* but got 5 for the 21 samples of 'train'"
    with pytest.raises(ValueError, match=text):
        lone()
    with pytest.raises(ValueError, match="but got 1 for the 20 samples"):
        lone(count=20, size=1)
    assert lone("frozen").history
    assert lone(count=20).history


class Extra(Net):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Net().to("meta"), ValueError, "with weights, but got 'body.weight' on the meta device"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), ValueError, "with weights, but got lazy '1.weight'"),
        (lambda: torch.ao.quantization.quantize_dynamic(Net()), ValueError, "a quantised module: Linear at 'body'"),
        (lambda: torch.jit.trace(Net().eval(), INPUTS), TypeError, "but got TorchScript: TopLevelTracedModule"),
        (lambda: torch.export.export(Net(), (INPUTS,)).module(), TypeError, "but got what torch.export made: Graph"),
        (Extra, ValueError, r"all of its state in tensors, but got get_extra_state\(\) of Extra"),
    ],
    ids=["meta", "lazy", "quantised", "scripted", "exported", "extra state"],
)
def test_what_cannot_be_trained_is_refused_by_name(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    calls = {
        "model": (
            lambda model: train(model, DATA, epochs=1),
            lambda model: finetune(model, TASK),
            lambda model: metrics.evaluate(model, TASK),
            lambda model: audits.relearn_time(model, TASK, original=1.0),
            lambda model: audits.linear_probe(model, TASK),
        ),
        "a": (lambda model: composition.interpolate(model, PLAIN, 0.5),),
    }
    for name, functions in calls.items():
        for call in functions:
            with pytest.raises(error, match=f"expected {name} .*{text}"):
                call(make())


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    calls = (
        lambda device: finetune(PLAIN, TASK, device=device, **OPTIONS),
        lambda device: metrics.accuracy(PLAIN, DATA, device=device),
        lambda device: audits.relearn_time(PLAIN, TASK, original=1.0, max_steps=5, device=device),
    )
    for call in calls:
        for device in ("", "gpu", "meta", 10**6, "cuda:99"):
            with pytest.raises(ValueError, match="expected device to "):
                call(device)
        for device in ([], False, 0.5):
            with pytest.raises(TypeError, match=r"expected device to be a (name or a torch.)?device"):
                call(device)
