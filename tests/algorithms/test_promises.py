"""What every algorithm promises, whoever wrote it: one table, one row a method."""

from __future__ import annotations

import copy
import inspect
import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import algorithms
from unlearn_kit import UnlearnResult, UnlearnTask, adapters, models
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Callback, Facts, Run, facts_of, resumable, train
from unlearn_kit.metrics import predict
from unlearn_kit.schedules import Schedule, constant

BATCH = {"batch_size": 7}
STEPS = {"steps": 2, **BATCH}

# Options that make each method run in a moment; batches are smaller than the data and do not divide them. A new
# algorithm is one line here; what else is to know of it, it declares itself.
QUICK: dict[str, dict[str, Any]] = {
    "amun": {**STEPS, "search_steps": 1},
    "augmentation_matching": {**STEPS, "tolerance": 1.0},  # mirrored at the horizontal, two classes change places
    "bad_teacher": STEPS,
    "boundary_expand": STEPS,
    "boundary_shrink": STEPS,
    "catastrophic_forget_k": STEPS,
    "damp": {},
    "delete": STEPS,
    "erase_to_retain": {"rounds": 1, "rank": 2, "restore_epochs": 1, **BATCH},
    "exact_unlearn_k": STEPS,
    "finetune": STEPS,
    "fisher_forgetting": {},
    "hamu": STEPS,
    "influence": {},
    "jit": {"draws": 2, **BATCH},
    "l1_sparse": STEPS,
    "lfssd": {},
    "lotus": {"epochs": 1, **BATCH},
    "masked_small_gradient": {"steps": 2, **BATCH},
    "mean_feature_head": {"steps": 2, "rounds": 1, **BATCH},
    "munba": STEPS,
    "neg_grad": STEPS,
    "neg_grad_plus": STEPS,
    "negmerge": {**STEPS, "rates": (0.5, 1.0)},
    "oracle_matching": STEPS,
    "perturbed_sign": STEPS,
    "quantile_matching": {**STEPS, "max_share": 1.0},
    "random_label": STEPS,
    "regun": STEPS,
    "reload": {"epochs": 1, **BATCH},
    "retrain": {"epochs": 1, **BATCH},
    "rurk": STEPS,
    "salun": STEPS,
    "scrub": {"epochs": 2, "msteps": 1, **BATCH},
    "sfron": {"steps": 5, **BATCH},
    "ssd": {},
    "ugradsl": STEPS,
    "unsir": {**STEPS, "noise_samples": 8, "noise_steps": 2},
}


def images(count: int, seed: int) -> TensorImages:
    """Three classes, told apart by which third of the picture is bright."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.4 * torch.rand(count, 1, 8, 8, generator=source)
    for label in range(3):
        x[y == label, :, 2 + 2 * label : 4 + 2 * label] += 0.5
    return TensorImages(x, y)


def pictures(count: int, seed: int) -> TensorImages:
    """Bright squares on noise, and their masks."""
    source = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 1, 8, 8)
    for i, corner in enumerate(torch.randint(4, (count,), generator=source).tolist()):
        masks[i, :, corner : corner + 4, 2:6] = 1
    return TensorImages(0.4 * torch.rand(count, 1, 8, 8, generator=source) + 0.5 * masks, masks)


def findings(count: int, seed: int) -> TensorImages:
    """Three findings, each a bright third of the picture, in any company; one in ten is unknown."""
    source = torch.Generator().manual_seed(seed)
    y = (torch.rand(count, 3, generator=source) < 0.4).float()
    x = 0.4 * torch.rand(count, 1, 8, 8, generator=source)
    for finding in range(3):
        x[y[:, finding] == 1, :, 2 + 2 * finding : 4 + 2 * finding] += 0.5
    return TensorImages(x, y.masked_fill(torch.rand(count, 3, generator=source) < 0.1, -1))


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    network = models.small_cnn(num_classes=3, channels=1, width=4)
    return train(network, images(45, 0), epochs=6, batch_size=9).model.eval()


@pytest.fixture(scope="module")
def reader() -> nn.Module:
    torch.manual_seed(0)
    network = models.small_cnn(num_classes=3, channels=1, width=4)
    return train(network, findings(45, 0), epochs=8, batch_size=9).model.eval()


@pytest.fixture(scope="module")
def segmenter() -> nn.Module:
    torch.manual_seed(0)
    network = models.unet(num_classes=2, channels=1, widths=(4, 8, 12), decoder_widths=(12, 8, 4))
    fitted = train(network, pictures(20, 0), epochs=4, batch_size=5, lr=1e-2, optimizer="adam")
    return fitted.model.eval()


def of_class() -> UnlearnTask:
    return UnlearnTask.forget_class(images(45, 0), images(15, 1), 0)


def of_sample() -> UnlearnTask:
    return UnlearnTask.forget_samples(images(45, 0), images(15, 1), [4])


def of_findings() -> UnlearnTask:
    return UnlearnTask.forget_random(findings(45, 0), findings(20, 1), 0.2)


def of_finding() -> UnlearnTask:
    return UnlearnTask.forget_class(findings(45, 0), findings(20, 1), 1)


def of_masks() -> UnlearnTask:
    return UnlearnTask.forget_random(pictures(20, 0), pictures(8, 1), 0.2)


def quick(name: str, model: nn.Module) -> dict[str, Any]:
    """Return options for a short run, with a reference for what reads one."""
    return QUICK[name] | ({"references": [models.fresh_copy(model, seed=0)]} if facts(name).reads_reference else {})


def run(name: str, model: nn.Module, task: UnlearnTask, **options: Any) -> UnlearnResult:
    return getattr(algorithms, name)(model, task, **{**quick(name, model), **options})


def facts(name: str) -> Facts:
    return facts_of(getattr(algorithms, name))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.fixture(params=sorted(QUICK))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_table_names_every_algorithm() -> None:
    assert set(QUICK) == set(algorithms.__all__)
    assert sorted(algorithms.__all__) == list(algorithms.__all__)


def test_model_data_and_random_state_stay_as_they_were(name: str, classifier: nn.Module) -> None:
    task = of_class()
    given = copy.deepcopy(classifier)
    given.train()
    given.get_submodule("block2").eval()
    given.get_parameter("block1.0.weight").requires_grad_(False)
    before, modes = state(given), [module.training for module in given.modules()]
    flags = [p.requires_grad for p in given.parameters()]
    data = [copy.deepcopy(part.dataset.__dict__) for part in (task.forget, task.retain, task.retain_test)]
    random_states = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    threads = torch.get_num_threads()

    result = run(name, given, task)

    assert same(state(given), before)
    assert [module.training for module in given.modules()] == modes
    assert [p.requires_grad for p in given.parameters()] == flags
    assert all(p.grad is None for p in given.parameters())
    for held, part in zip(data, (task.forget, task.retain, task.retain_test), strict=True):
        assert torch.equal(held["inputs"], part.dataset.inputs)
        assert torch.equal(held["targets"], part.dataset.targets)
    after = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    assert after[0] == random_states[0]
    assert all(np.array_equal(a, b) for a, b in zip(after[1], random_states[1], strict=True))
    assert torch.equal(after[2], random_states[2])
    assert torch.get_num_threads() == threads
    shared = {p.data_ptr() for p in given.parameters()} & {p.data_ptr() for p in result.model.parameters()}
    assert not shared


def test_same_seed_same_bits(name: str, classifier: nn.Module) -> None:
    task = of_class()
    first = run(name, classifier, task, seed=3)
    torch.rand(5)
    second = run(name, classifier, task, seed=3)
    assert same(state(first.model), state(second.model))
    assert first.history == second.history


def test_torch_s_global_settings_change_no_bit(
    name: str, classifier: nn.Module, unusual_settings: AbstractContextManager[None]
) -> None:
    task = of_class()
    plain = run(name, classifier, task)
    with unusual_settings:
        result = run(name, classifier, task)
    assert same(state(result.model), state(plain.model))
    assert result.history == plain.history


def test_inference_mode_is_refused_by_name(name: str, classifier: nn.Module) -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match=f"{name} to be called outside torch.inference_mode"):
        run(name, classifier, of_class())


def test_result_tells_what_was_done(name: str, classifier: nn.Module) -> None:
    task = of_class()
    result = run(name, classifier, task, seed=1)
    assert result.method == name
    assert result.seconds > 0
    assert result.config["seed"] == 1
    assert json.dumps(result.config)
    assert json.dumps(result.history)
    assert all(torch.isfinite(v).all() for v in result.model.state_dict().values() if v.is_floating_point())
    assert torch.isfinite(predict(result.model, task.retain_test)[0]).all()
    assert not result.model.training
    assert getattr(algorithms, name).__doc__.count("Source:") <= 1


def test_it_does_something(name: str, classifier: nn.Module) -> None:
    task = of_class()
    result = run(name, classifier, task)
    with torch.no_grad():
        x = task.forget.dataset.inputs
        assert not torch.equal(result.model(x), classifier(x))


def test_one_sample_to_forget(name: str, classifier: nn.Module) -> None:
    result = run(name, classifier, of_sample())
    assert torch.isfinite(predict(result.model, of_sample().forget)[0]).all()


def test_masks_work_or_are_refused_by_name(name: str, segmenter: nn.Module) -> None:
    task = of_masks()
    if "segmentation" in facts(name).kinds:
        result = run(name, segmenter, task)
        logits, _ = predict(result.model, task.forget)
        assert logits.shape == (4, 1, 8, 8)
        assert torch.isfinite(logits).all()
    else:
        with pytest.raises(ValueError, match=r"mask|segmentation"):
            run(name, segmenter, task)


@pytest.mark.parametrize("of", [of_findings, of_finding])
def test_findings_work_or_are_refused_by_name(name: str, of: Callable[[], UnlearnTask], reader: nn.Module) -> None:
    task, before = of(), state(reader)
    if "multilabel" not in facts(name).kinds:
        with pytest.raises(ValueError, match=f"expected a classification .*task for {name}.* but got multilabel"):
            run(name, reader, task)
        return
    result = run(name, reader, task, seed=2)
    logits, _ = predict(result.model, task.forget)
    assert logits.shape == (len(task.forget), 3)
    assert torch.isfinite(logits).all()
    assert same(state(reader), before)
    assert not same(state(result.model), before)
    again = run(name, reader, task, seed=2)
    assert same(state(result.model), state(again.model))
    assert result.history == again.history
    with pytest.raises(ValueError, match=r"expected model to have 3 outputs, one a finding of the task, .* \(1, 5\)"):
        run(name, models.small_cnn(num_classes=5, channels=1, width=4), task)


def test_frozen_parameters_do_not_move(name: str, classifier: nn.Module) -> None:
    if facts(name).reinitializes:
        pytest.skip("starts from fresh weights")
    given = copy.deepcopy(classifier)
    frozen = ["block1.0.weight", "block3.1.weight", "block3.1.bias"]
    for key in frozen:
        given.get_parameter(key).requires_grad_(False)
    decay = {"weight_decay": 0.1} if "weight_decay" in inspect.signature(getattr(algorithms, name)).parameters else {}
    result = run(name, given, of_class(), **decay)
    weights = adapters.base_state(result.model)
    assert all(torch.equal(weights[key], given.get_parameter(key)) for key in frozen)


class Unreadable(Dataset):
    """A retain set whose images must not be asked for."""

    def __init__(self, targets: torch.Tensor) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("the retain data were read")


def test_retain_data_that_are_not_needed_are_not_read(name: str, classifier: nn.Module) -> None:
    task = of_class()
    blind = UnlearnTask(
        task.forget, Unreadable(torch.arange(30) % 2 + 1), task.forget_test, task.retain_test, 3, forget_classes=(0,)
    )
    if not facts(name).reads_retain:
        run(name, classifier, blind)
    else:
        with pytest.raises(AssertionError, match="the retain data were read"):
            run(name, classifier, blind)


# Options under which a method looks at held-out data to choose by.
CHOOSES: dict[str, dict[str, Any]] = {
    "erase_to_retain": {"stop_at": "held-out"},
    "influence": {"step": None},
    "scrub": {"rewind": True},
}


class Judge(Dataset):
    """Test data, which have a length and nothing else for those who choose."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ("targets", "labels", "inputs", "batch"):
            raise AssertionError(f"{attribute} of test data were asked for")
        raise AttributeError(attribute)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("a test sample was read")


@pytest.mark.parametrize("of", [of_class, of_sample, of_masks, of_findings])
@pytest.mark.parametrize("chooses", [False, True])
def test_no_test_sample_is_read(
    name: str, of: Callable[[], UnlearnTask], chooses: bool, classifier: nn.Module, segmenter: nn.Module
) -> None:
    task = of()
    if (chooses and name not in CHOOSES) or task.kind not in facts(name).kinds:
        pytest.skip("nothing to choose, or no such task")
    if chooses and name == "erase_to_retain" and task.forget_classes:
        pytest.skip("of a class no held-out score is a goal")
    sealed = replace(task, forget_test=Judge(len(task.forget_test)), retain_test=Judge(len(task.retain_test)))
    model = segmenter if task.kind == "segmentation" else classifier
    options = CHOOSES[name] if chooses else {}
    own = run(name, model, task, **options)
    assert same(state(run(name, model, sealed, **options).model), state(own.model))


def test_a_retain_weight_of_zero_reads_no_retain_data(name: str, classifier: nn.Module) -> None:
    if "retain_weight" not in inspect.signature(getattr(algorithms, name)).parameters:
        pytest.skip("has no retain weight")
    task = of_class()
    blind = UnlearnTask(
        task.forget, Unreadable(torch.arange(30) % 2 + 1), task.forget_test, task.retain_test, 3, forget_classes=(0,)
    )
    run(name, classifier, blind, retain_weight=0.0)


def test_bad_options_are_refused_by_name(name: str, classifier: nn.Module) -> None:
    known = inspect.signature(getattr(algorithms, name)).parameters
    with pytest.raises(TypeError, match=rf"option of {name} to be one of .* but got 'seeed'; did you mean 'seed'"):
        run(name, classifier, of_class(), seeed=1)
    wrong = {"batch_size": 0, "lr": -1.0, "optimizer": "sgdd", "batch_norm": "thawed", "weight_decay": -1.0}
    for option in wrong.keys() & known.keys():
        with pytest.raises((ValueError, TypeError), match=f"expected .*{option}"):
            run(name, classifier, of_class(), **{option: wrong[option]})
    with pytest.raises(TypeError, match="expected task to be an UnlearnTask, but got str"):
        getattr(algorithms, name)(classifier, "class 0")
    with pytest.raises(ValueError, match=r"expected model to have 3 outputs, .* but got outputs of shape \(1, 5\)"):
        run(name, models.small_cnn(num_classes=5, channels=1, width=4), of_class())


def test_the_caller_gets_the_modes_it_gave(name: str, classifier: nn.Module) -> None:
    given = copy.deepcopy(classifier).train()
    assert run(name, given, of_class()).model.training


class Counter(Callback):
    steps = 0

    def on_step(self, run: Run) -> None:
        self.steps += 1


def test_callbacks_see_the_steps_and_change_nothing(name: str, classifier: nn.Module) -> None:
    if "callbacks" not in inspect.signature(getattr(algorithms, name)).parameters:
        pytest.skip("takes no steps")
    counter = Counter()
    watched = run(name, classifier, of_class(), callbacks=[counter])
    assert counter.steps >= 1
    assert same(state(watched.model), state(run(name, classifier, of_class()).model))


def test_frozen_batch_norm_keeps_every_buffer(name: str, classifier: nn.Module) -> None:
    if "batch_norm" not in inspect.signature(getattr(algorithms, name)).parameters:
        pytest.skip("never trains batch norm, or always does")
    before = dict(classifier.named_buffers())
    if not facts(name).reinitializes:
        assert same(dict(run(name, classifier, of_class(), batch_norm="frozen").model.named_buffers()), before)
    moved = dict(run(name, classifier, of_class(), batch_norm="update").model.named_buffers())
    assert not same(moved, before)
    assert all(torch.isfinite(value).all() for value in moved.values())


def test_a_last_batch_of_a_single_sample(name: str, classifier: nn.Module) -> None:
    if "batch_size" not in inspect.signature(getattr(algorithms, name)).parameters:
        pytest.skip("has no batches")
    task = of_class()  # Fifteen samples to forget and thirty to keep.
    for batch_size in (14, 29, 1000):
        result = run(name, classifier, task, batch_size=batch_size)
        assert torch.isfinite(predict(result.model, task.retain_test)[0]).all()


def test_lengths_that_are_none_are_refused_by_name(name: str, classifier: nn.Module) -> None:
    known = inspect.signature(getattr(algorithms, name)).parameters
    quick = {key: value for key, value in QUICK[name].items() if key not in ("steps", "epochs")}
    for option in {"steps", "epochs", "rounds"} & known.keys():
        with pytest.raises(ValueError, match=f"expected {option} to be at least [01], but got -1"):
            getattr(algorithms, name)(classifier, of_class(), **{**quick, option: -1})


def test_the_docstring_names_every_option(name: str) -> None:
    text = inspect.getdoc(getattr(algorithms, name)) or ""
    assert not [option for option in inspect.signature(getattr(algorithms, name)).parameters if option not in text]
    assert "Raises:" in text


def test_what_is_not_given_differs_from_none(name: str, classifier: nn.Module) -> None:
    known = inspect.signature(getattr(algorithms, name)).parameters
    if not facts(name).training:
        pytest.skip("does not train")
    assert known["clip"].default == next(iter(facts(name).training.values())).clip
    assert run(name, classifier, of_class(), clip=None).config["clip"] is None
    if {"epochs", "steps"} <= known.keys():
        quick = {key: value for key, value in QUICK[name].items() if key not in ("epochs", "steps")}
        with pytest.raises(ValueError, match="expected one of epochs and steps, but got epochs=1, steps=2"):
            getattr(algorithms, name)(classifier, of_class(), **{**quick, "epochs": 1, "steps": 2})


def test_a_number_scales_the_schedule_and_a_schedule_replaces_it(name: str, classifier: nn.Module) -> None:
    if not facts(name).training:
        pytest.skip("does not train")
    default = next(iter(facts(name).training.values())).lr
    told = run(name, classifier, of_class(), lr=2e-4).config["lr"]
    assert told == ("cosine(0.0002, 0)" if isinstance(default, Schedule) else 2e-4)
    assert run(name, classifier, of_class(), lr=constant(2e-4)).config["lr"] == "constant(0.0002)"


def test_decoding_workers_change_no_bit(classifier: nn.Module) -> None:
    task = of_class()
    files = UnlearnTask(*(Decoded(part) for part in (task.forget, task.retain, task.forget_test, task.retain_test)), 3)
    plain, worked = (run("finetune", classifier, files, workers=workers).model for workers in (0, 1))
    assert same(state(plain), state(worked))


class Decoded(Dataset):
    """Samples that are read one at a time, as from files."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


class Killed(Callback):
    """Ends the process, so to speak, after a step of the whole run; never when that is 0."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, 0

    def on_step(self, run: Run) -> None:
        self.seen += 1
        if self.seen == self.after:
            raise KeyboardInterrupt


def test_killed_at_a_step_it_goes_on_with_the_same_bits(name: str, classifier: nn.Module, tmp_path: Path) -> None:
    if not facts(name).training:
        pytest.skip("it does not train")
    whole = run(name, classifier, of_class(), callbacks=[Killed(0)])
    saved = []
    for after in (1, 2):  # the first time before anything of this training was saved
        with resumable(tmp_path, seconds=0), pytest.raises(KeyboardInterrupt):
            run(name, classifier, of_class(), callbacks=[Killed(after)])
        saved.append(len(list(tmp_path.iterdir())))
    assert saved[1] == saved[0] + 1
    with resumable(tmp_path, seconds=0):
        resumed = run(name, classifier, of_class(), callbacks=[Killed(0)])
        assert same(state(resumed.model), state(whole.model))
        assert resumed.history == whole.history
        # What was through is not trained again.
        again = Killed(0)
        assert same(state(run(name, classifier, of_class(), callbacks=[again]).model), state(whole.model))
        assert again.seen == 0
