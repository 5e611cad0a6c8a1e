"""Erase to Retain: what it trains, what it leaves alone, where it stops."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
import torch
from torch import nn

from algorithms import erase_to_retain
from algorithms.erase_to_retain import paced
from algorithms.stopping import stop_level
from unlearn_kit import UnlearnTask, adapters, data, models
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Callback, Run, train
from unlearn_kit.metrics import accuracy, iou


@pytest.fixture(scope="module")
def lesions() -> tuple[nn.Module, UnlearnTask]:
    bundle = data.load("synthetic-lesions", train_size=24, test_size=8, size=16)
    torch.manual_seed(0)
    model = models.unet(num_classes=2, channels=3, widths=(4, 8, 12, 16))
    fitted = train(
        model, bundle.train, epochs=15, batch_size=8, lr=1e-2, optimizer="adam", objective=L.dice_bce(on="train")
    )
    return fitted.model.eval(), UnlearnTask.forget_random(bundle.train, bundle.test, 0.25)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, UnlearnTask]:
    bundle = data.load("digits", train_size=300)
    torch.manual_seed(0)
    model = train(models.small_cnn(num_classes=10, channels=1, width=8), bundle.train, epochs=8, batch_size=32).model
    return model.eval(), UnlearnTask.forget_class(bundle.train, bundle.test, 0)


QUICK = {"rounds": 1, "batch_size": 8, "rank": 2, "stop_at": "never"}


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_switched_off_the_original_returns_bit_for_bit(preset, lesions) -> None:
    model, task = lesions
    result = erase_to_retain(model, task, preset=preset, **QUICK)
    x = torch.stack([task.retain_test[i][0] for i in range(4)])
    with torch.no_grad():
        assert not torch.equal(result.model(x), model(x))
        with adapters.switched_off(result.model):
            assert torch.equal(result.model(x), model(x))
    original = model.state_dict()
    assert all(torch.equal(v, original[k]) for k, v in adapters.base_state(result.model).items())


def test_paper_adapts_the_decoder_and_a_copy_of_the_head(lesions) -> None:
    model, task = lesions
    result = erase_to_retain(model, task, restore_epochs=1, **QUICK)
    fresh = adapters.attach(model, "decoder", 2, name="erase", full=("segmentation_head",))
    names = {name for name, p in result.model.named_parameters() if p.requires_grad}
    assert names == {name for name, p in fresh.named_parameters() if p.requires_grad}
    assert all(".decoder." in name or ".segmentation_head." in name for name in names)
    start = dict(model.segmentation_head.named_parameters())
    copied = {n: p for n, p in result.model.named_parameters() if "segmentation_head.modules_to_save" in n}
    assert any(not torch.equal(p, start[n.split(".erase.")[-1]]) for n, p in copied.items())


def test_each_module_comes_back_in_its_mode(lesions) -> None:
    model = copy.deepcopy(lesions[0]).train()
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    model.get_submodule(norms[0]).eval()
    revised = erase_to_retain(model, lesions[1], restore_epochs=0, **QUICK).model
    modes = {name: module.training for name, module in adapters.merge(revised).named_modules()}
    assert modes == {name: module.training for name, module in model.named_modules()}


def test_head_rests_while_erasing_and_adapters_rest_while_restoring(lesions) -> None:
    model, task = lesions
    erased = erase_to_retain(model, task, restore_epochs=0, **QUICK)
    restored = erase_to_retain(model, task, restore_epochs=1, **QUICK)
    after = {n: p for n, p in restored.model.named_parameters() if ".lora_" in n}
    before = {n: p for n, p in erased.model.named_parameters() if ".lora_" in n}
    assert before.keys() == after.keys()
    assert all(torch.equal(p, after[n]) for n, p in before.items())


@pytest.mark.parametrize("restore", [0, 1])
def test_a_later_request_trains_its_adapter_beside_those_in_service(digits, restore) -> None:
    model, task = digits
    options = {**QUICK, "batch_size": 32, "where": "block3"}
    first = erase_to_retain(model, task, name="first", restore_epochs=0, **options).model
    held = {key: value.clone() for key, value in first.state_dict().items()}
    second = erase_to_retain(first, task, name="second", restore_epochs=restore, **options).model
    assert adapters.adapter_names(second) == ["first", "second"]
    moved = {key for key, value in second.state_dict().items() if key not in held or not torch.equal(value, held[key])}
    assert all(".second." in key or ".original_module." in key for key in moved)
    assert any("lora_B.second" in key for key in moved)
    base = model.state_dict()
    assert all(torch.equal(value, base[key]) for key, value in adapters.base_state(second).items())
    x = torch.stack([task.retain[i][0] for i in range(4)])
    with torch.no_grad(), adapters.only(second, ["first"]):
        assert torch.equal(second(x), first(x))
    with pytest.raises(ValueError, match="expected name to be new"):
        erase_to_retain(first, task, name="first", restore_epochs=0, **options)


def test_released_adapts_every_convolution_and_takes_turns(lesions) -> None:
    model, task = lesions
    result = erase_to_retain(model, task, preset="released", **{**QUICK, "rounds": 2})
    adapted = {n.split(".lora_A")[0] for n, _ in result.model.named_parameters() if ".lora_A" in n}
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(adapted) == len(convolutions)
    phases = list(dict.fromkeys((r["phase"], r["epoch"]) for r in result.history))
    assert phases == [("retain", 0), ("erase", 0), ("retain", 1), ("erase", 1)]


@pytest.mark.parametrize(
    ("preset", "phase", "formula"),
    [
        (
            "paper",
            "erase",
            "dice_bce(retain -> Labels) + kl(retain -> Teacher(UNet), temperature=2)"
            " + 0.05 * mse(retain -> Teacher(UNet))"
            " + every(2) * cross_entropy(forget -> Contradiction(UNet, confidence=0.9))",
        ),
        ("paper", "restore", "dice_bce(retain -> Labels)"),
        ("released", "erase", "3 * cross_entropy(forget -> Background(index=0))"),
    ],
)
def test_objectives_print_as_formulas(preset, phase, formula, lesions) -> None:
    model, task = lesions
    result = erase_to_retain(model, task, preset=preset, **{**QUICK, "rounds": 0})
    assert result.details["objectives"][phase] == formula


def test_one_argument_swaps_the_forget_target(lesions) -> None:
    model, task = lesions
    targets = {
        "Background": L.Background(),
        "Uniform": L.Uniform(2),
        "RandomLabels": L.RandomLabels(2),
        "Boundary": L.Boundary(model, PerturbedSign(radius=0.05)),
    }
    seen = []
    for name, target in targets.items():
        result = erase_to_retain(model, task, erase_to=target, restore_epochs=0, **QUICK)
        assert name in result.details["objectives"]["erase"]
        seen.append(torch.cat([p.flatten() for n, p in result.model.named_parameters() if "lora_B" in n]))
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_forgets_and_an_early_stop_forgets_less(lesions) -> None:
    model, task = lesions
    options = {"rounds": 12, "batch_size": 8, "lr": 1e-2, "pace": 1.0, "restore_epochs": 0}
    far = erase_to_retain(model, task, stop_at="never", **options)
    near = erase_to_retain(model, task, stop_at="held-out", **options)
    before, held_out = iou(model, task.forget), iou(near.model, task.retain_validation)
    assert near.details["stop_level"] == pytest.approx(held_out)
    assert near.details["stopped"].startswith("forget score above held-out = ")
    assert iou(far.model, task.forget) < iou(near.model, task.forget) <= held_out < before
    middle = erase_to_retain(model, task, stop_at=0.5, **options)
    assert middle.details["stopped"].startswith("forget score = ")
    assert middle.details["stop_level"] == 0.5


def test_stop_level_of_an_attribute_is_the_score_of_unseen_data_that_share_it(lesions) -> None:
    model, _ = lesions
    bundle = data.load("synthetic-lesions", train_size=24, test_size=24, size=16)
    device = bundle.train_metadata["device"].iloc[0]
    task = UnlearnTask.forget_where(
        bundle.train, bundle.test, bundle.train_metadata, bundle.test_metadata, lambda t: t["device"] == device
    )
    assert 0 < len(task.forget_validation) < 24
    level = stop_level(model, task, "held-out")
    assert level == pytest.approx(iou(model, task.forget_validation))
    # Their score falls along with that of the forget data: the level is the original's, and does not sink.
    options = {"rounds": 6, "batch_size": 8, "lr": 1e-2, "pace": 1.0, "restore_epochs": 0}
    near = erase_to_retain(model, task, stop_at="held-out", **options)
    assert near.details["stop_level"] == level
    assert near.details["stopped"].startswith("forget score = ")
    assert iou(near.model, task.forget) <= level


def test_stop_level_of_classes_weighs_as_the_forget_data_do(digits) -> None:
    model, _ = digits
    bundle = data.load("digits", train_size=300)
    labels = (
        bundle.train.targets if isinstance(bundle.train, TensorImages) else torch.stack([y for _, y in bundle.train])
    )
    ones = (labels == 1).nonzero().flatten()[:5].tolist() + (labels == 8).nonzero().flatten()[:15].tolist()
    task = UnlearnTask.forget_samples(bundle.train, bundle.test, ones)
    unseen = task.retain_validation
    y = torch.stack([y for _, y in unseen])
    scores = [accuracy(model, torch.utils.data.Subset(unseen, (y == c).nonzero().flatten().tolist())) for c in (1, 8)]
    assert stop_level(model, task, "held-out") == pytest.approx(0.25 * scores[0] + 0.75 * scores[1])


def test_a_class_is_forgotten_toward_uniform(digits) -> None:
    model, task = digits
    # The forget data fill one batch: a round makes a single step away from them.
    result = erase_to_retain(model, task, preset="released", rounds=20, batch_size=32, lr=1e-2, stop_at="never")
    assert result.details["objectives"]["erase"] == "3 * kl(forget -> Uniform(num_classes=10))"
    assert accuracy(result.model, task.forget) < 0.5 < 0.8 < accuracy(result.model, task.retain)
    with adapters.switched_off(result.model):
        assert accuracy(result.model, task.forget) == accuracy(model, task.forget)


@dataclass(frozen=True, eq=False)
class Asked:
    """A target that knows in which steps it was asked for."""

    calls: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    gives = ("labels",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        self.calls.append(len(batch.inputs))
        return L.Goal("labels", torch.zeros_like(batch.targets))


class Steps(Callback):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def on_step(self, run: Run) -> None:
        if self.asked.calls:
            self.asked.steps.append(run.step - 1)
            self.asked.calls.clear()


@pytest.mark.parametrize("pace", [1.0, 0.9, 0.75, 0.7, 0.5, 0.4, 0.3, 1 / 3, 0.29, 0.1, 0.07])
def test_any_pace_is_kept(pace: float) -> None:
    fired = [paced(pace).at(step, 200) for step in range(200)]
    exact = Fraction(pace).limit_denominator(100)
    assert fired == [float((step + 1) * exact // 1 > step * exact // 1) for step in range(200)]
    if (1 / exact).denominator == 1:
        assert paced(pace) == L.every(int(1 / exact))
        assert fired == [L.every(int(1 / exact)).at(step, 200) for step in range(200)]


def test_a_pace_between_one_and_a_half_is_neither(lesions) -> None:
    model, task = lesions
    options = {**QUICK, "rounds": 2, "restore_epochs": 0}
    erased = []
    for pace in (0.5, 0.75, 1.0):
        asked = Asked()
        erase_to_retain(model, task, pace=pace, erase_to=asked, callbacks=[Steps(asked)], **options)
        erased.append(asked.steps)
    assert erased == [[1, 3, 5], [1, 2, 3, 5], [0, 1, 2, 3, 4, 5]]


def test_only_the_pixels_of_a_mask_class_are_erased() -> None:
    masks = torch.zeros(6, 8, 8, dtype=torch.int64)
    masks[:, :3], masks[:, 5:] = 1, 2
    images = TensorImages((masks[:, None] / 2).float() * 0.9 + 0.05, masks)
    torch.manual_seed(0)
    model = models.unet(num_classes=3, channels=1, widths=(4, 8, 12, 16))
    model = train(model, images, epochs=20, batch_size=6, lr=1e-2, optimizer="adam").model.eval()
    task = UnlearnTask.forget_mask_class(images, images, 2)
    result = erase_to_retain(
        model, task, erase_to=L.Background(), rounds=15, batch_size=6, lr=1e-2, stop_at="never", restore_epochs=0
    )
    assert "Within(Background(index=0), label=2)" in result.details["objectives"]["erase"]
    before, after = (iou(m, task.forget, per_class=True) for m in (model, result.model))
    # Each class has three rows of pixels: of one that is known, less than a row is wrong.
    assert before[2] > 2 / 3 > 0.2 > after[2]
    assert after[1] > 2 / 3


def test_refusals(lesions, digits) -> None:
    model, task = digits
    with pytest.raises(ValueError, match=r"a number or 'never' for stop_at, but got 'held-out'.*would reach"):
        erase_to_retain(model, task, stop_at="held-out")
    model, task = lesions
    with pytest.raises(ValueError, match=r"expected preset to be one of .*did you mean 'released'"):
        erase_to_retain(model, task, preset="release")
    with pytest.raises(ValueError, match="expected pace in"):
        erase_to_retain(model, task, pace=0.0)
    with pytest.raises(ValueError, match=r"expected no pace with preset='released', .* but got 0.5"):
        erase_to_retain(model, task, preset="released", pace=0.5)
    with pytest.raises(TypeError, match=r"option of erase_to_retain .*did you mean 'erase_to'"):
        erase_to_retain(model, task, erase_too=L.Background())
    with pytest.raises(ValueError, match="where to choose convolutions or linear layers"):
        erase_to_retain(model, task, where="neck")


def test_given_model_stays(lesions) -> None:
    model, task = lesions
    before = copy.deepcopy(model.state_dict())
    erase_to_retain(model, task, **QUICK)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
