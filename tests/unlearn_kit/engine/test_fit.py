"""The training loop, against loops written by hand on the same batches."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from unlearn_kit import DivergenceError
from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Alternate, Callback, FitResult, Phase, Run, Stream, fit, supervised_phase, train
from unlearn_kit.engine.devices import Devices
from unlearn_kit.engine.tables import chunk_size
from unlearn_kit.models import build
from unlearn_kit.seeding import derive, generator, isolated

State = dict[str, Tensor]


def images(count: int, seed: int = 0) -> TensorImages:
    own = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=own), torch.randint(3, (count,), generator=own))


FORGET, RETAIN = images(10, 1), images(23, 2)
KEEP, ERASE = L.cross_entropy(on="retain"), L.cross_entropy(on="forget")


def cnn(seed: int = 0) -> nn.Module:
    model = build("small-cnn", 3, seed=seed, width=2)
    with isolated(seed), torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # Statistics of a trained network are not 0 and 1.
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.1, 0.4)
    return model.eval()


def dense(seed: int = 0, hidden: Sequence[int] = (6,)) -> nn.Module:
    return build("mlp", 3, seed=seed, hidden=hidden)


def dropping(seed: int = 0) -> nn.Module:
    model = dense(seed)
    model.get_submodule("block1").append(nn.Dropout(0.5))  # type: ignore[operator]
    return model


def phase(objective: Any = KEEP, **options: Any) -> Phase:
    streams = {name: {"forget": FORGET, "retain": RETAIN}[name] for name in L.Objective(objective._terms).streams}
    return Phase(objective, **{"streams": streams, "batch_size": 8, "lr": 0.05, **options})


def same(a: nn.Module | State, b: nn.Module | State) -> bool:
    one, other = (m.state_dict() if isinstance(m, nn.Module) else m for m in (a, b))
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def assert_close(a: nn.Module, b: nn.Module) -> None:
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=1e-5, atol=1e-6)


def batches(stream: str, steps: int, *, size: int = 8, key: str = "0.train", seed: int = 0) -> list[tuple[Tensor, Any]]:
    """The samples of each step of a phase, read without the engine's reader."""
    data = {"forget": FORGET, "retain": RETAIN}[stream]
    order = Stream(stream, data, size, derive(seed, key))
    return [(data.inputs[order.indices(n)], data.targets[order.indices(n)]) for n in range(steps)]


class SGD:
    """Momentum and weight decay as the formulas say, written without torch.optim."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.9, decay: float = 0.0) -> None:
        self.parameters, self.momentum, self.decay = parameters, momentum, decay
        self.velocity = [torch.zeros_like(p) for p in parameters]

    def step(self, loss: Tensor, lr: float, clip: float | None = None) -> None:
        gradients = torch.autograd.grad(loss, self.parameters)
        if clip is not None:
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            gradients = tuple(g * min(1.0, clip / (norm + 1e-6)) for g in gradients)
        with torch.no_grad():
            for p, g, v in zip(self.parameters, gradients, self.velocity, strict=True):
                v.mul_(self.momentum).add_(g + self.decay * p)
                p.sub_(lr * v)


def frozen_norm(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


# What is left untouched


class Exploding(Callback):
    def on_step(self, run: Run) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
@pytest.mark.parametrize("callbacks", [(), (Exploding(),)], ids=["finished", "interrupted"])
def test_the_given_model_the_data_and_the_random_state_stay_as_they_are(
    batch_norm: str, callbacks: Sequence[Callback]
) -> None:
    model = cnn().train()
    model.get_submodule("block3").eval()
    model.get_parameter("block1.0.weight").requires_grad_(False)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    data = [t.clone() for t in (RETAIN.inputs, RETAIN.targets)]
    random.seed(5)
    np.random.seed(6)  # noqa: NPY002
    torch.manual_seed(7)
    drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        result = fit(model, phase(steps=2, batch_norm=batch_norm), callbacks=callbacks).model
        assert [m.training for m in result.modules()] == modes
        assert [p.requires_grad for p in result.parameters()] == flags
        assert not same(result, state)
    except KeyboardInterrupt:
        assert callbacks
    assert same(model, state)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(RETAIN.inputs, data[0])
    assert torch.equal(RETAIN.targets, data[1])
    assert random.getstate() == drawn[0]
    assert str(np.random.get_state()) == str(drawn[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), drawn[2])


def test_the_result_shares_no_memory_with_the_given_model() -> None:
    model = dense()
    result = fit(model, phase(steps=0)).model
    assert same(result, model)
    ours, theirs = ({p.data_ptr() for p in m.parameters()} for m in (result, model))
    assert not ours & theirs


# Random numbers


def test_the_seed_decides_every_bit_and_the_caller_s_random_state_none() -> None:
    program = phase(steps=4)
    first = fit(dropping(), program, seed=1).model
    torch.manual_seed(99)
    assert same(first, fit(dropping(), program, seed=1).model)
    assert not same(first, fit(dropping(), program, seed=2).model)


def test_dropout_is_drawn_anew_in_every_step() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(super().forward(torch.ones_like(x[:1])))
            return x

    model = dense()
    model.get_submodule("block1").append(Watched(0.5))  # type: ignore[operator]
    fit(model, phase(steps=4))
    assert len({tuple(mask.flatten().tolist()) for mask in seen}) > 1


class Noisy(Callback):
    """Draws from every random state, and looks at the model as a metric might."""

    def on_step(self, run: Run) -> None:
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(3)

    on_epoch = on_start = on_end = on_step


def test_neither_log_nor_callbacks_change_the_result() -> None:
    program = phase(ERASE + KEEP, epochs=3, batch_size={"forget": 4, "retain": 8})
    plain = fit(dropping(), program, log_every=1)
    assert same(plain.model, fit(dropping(), program, log_every=100).model)
    assert same(plain.model, fit(dropping(), program, callbacks=[Noisy(), Noisy()]).model)


# Against a loop written by hand


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
def test_one_phase_of_sgd_equals_a_loop_written_by_hand(batch_norm: str) -> None:
    objective = 2.0 * ERASE + L.linear(1.0, 3.0) * KEEP
    program = phase(
        objective,
        epochs=2,
        batch_size={"forget": 4, "retain": 9},
        lr=L.cosine(0.1, 0.01),
        weight_decay=0.02,
        batch_norm=batch_norm,
    )
    ours = fit(cnn(), program, seed=5, log_every=1)
    steps = 2 * 3
    by_hand = frozen_norm(cnn()) if batch_norm == "frozen" else cnn().train()
    sgd, totals = SGD(list(by_hand.parameters()), 0.9, 0.02), []
    forget, retain = batches("forget", steps, size=4, seed=5), batches("retain", steps, size=9, seed=5)
    for step, ((xf, yf), (xr, yr)) in enumerate(zip(forget, retain, strict=True)):
        share = step / (steps - 1)
        loss = 2 * F.cross_entropy(by_hand(xf), yf) + (1 + 2 * share) * F.cross_entropy(by_hand(xr), yr)
        totals.append(loss.item())
        sgd.step(loss, 0.01 + 0.09 * (1 + math.cos(math.pi * step / steps)) / 2)
    assert_close(ours.model, by_hand)
    assert [record["total"] for record in ours.history] == pytest.approx(totals, rel=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_adams_equal_a_loop_over_torch_s(kind: str) -> None:
    ours = fit(dense(), phase(steps=5, optimizer=kind, lr=0.01, weight_decay=0.1)).model
    by_hand = dense()
    made = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](by_hand.parameters(), 0.01, weight_decay=0.1)
    for x, y in batches("retain", 5):
        made.zero_grad()
        F.cross_entropy(by_hand(x), y).backward()
        made.step()
    assert_close(ours, by_hand)


def test_clipping_equals_a_loop_written_by_hand() -> None:
    ours = fit(dense(), phase(10.0 * KEEP, steps=4, clip=0.5)).model
    by_hand = dense()
    sgd = SGD(list(by_hand.parameters()))
    for x, y in batches("retain", 4):
        sgd.step(10 * F.cross_entropy(by_hand(x), y), 0.05, clip=0.5)
    assert_close(ours, by_hand)


def test_a_phase_of_the_user_s_own_optimizer_keeps_its_learning_rate_or_is_given_one() -> None:
    def factory(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.03)

    for lr, used in ((None, 0.03), (0.2, 0.2), (L.linear(0.1, 0.0), None)):
        ours = fit(dense(), phase(steps=3, optimizer=factory, lr=lr)).model
        by_hand = dense()
        sgd = SGD(list(by_hand.parameters()), momentum=0.0)
        for step, (x, y) in enumerate(batches("retain", 3)):
            sgd.step(F.cross_entropy(by_hand(x), y), 0.1 * (3 - step) / 3 if used is None else used)
        assert_close(ours, by_hand)


def test_parameter_terms_need_no_data() -> None:
    decay = phase(L.parameter_norm(2.0), streams={}, steps=5, lr=0.1, momentum=0.0)
    shrunk = fit(dense(), decay).model
    for ours, start in zip(shrunk.parameters(), dense().parameters(), strict=True):
        torch.testing.assert_close(ours, start * (1 - 2 * 0.1) ** 5)
    home = fit(shrunk, phase(L.weight_distance(dense()), streams={}, steps=200, lr=0.2, momentum=0.0)).model
    assert_close(home, dense())


def test_supervised_training_falls_along_a_cosine_and_moves_batch_norm() -> None:
    ours = train(cnn(), RETAIN, epochs=2, seed=4, lr=0.2, weight_decay=0.01, batch_size=8)
    by_hand = cnn().train()
    sgd = SGD(list(by_hand.parameters()), 0.9, 0.01)
    order = Stream("train", RETAIN, 8, derive(4, "0.train"))
    for step in range(6):
        x, y = RETAIN.batch(order.indices(step))
        sgd.step(F.cross_entropy(by_hand(x), y), 0.1 * (1 + math.cos(math.pi * step / 6)))
    assert_close(ours.model, by_hand)
    own = supervised_phase(RETAIN, epochs=1, stream="retain", objective=KEEP, lr=None, optimizer=torch.optim.Rprop)
    assert own.lr is None
    assert own.terms.streams == ("retain",)
    with pytest.raises(ValueError, match=r"expected lr in .* but got -0.1"):
        train(cnn(), RETAIN, epochs=1, lr=-0.1)


# Which data


class Recorder:
    """A target that notes what it sees."""

    gives = ("labels",)

    def __init__(self) -> None:
        self.seen: list[L.Batch] = []

    def __call__(self, batch: L.Batch) -> L.Goal:
        self.seen.append(batch)
        return L.Goal("labels", batch.targets)


def sizes(batches: list[L.Batch], stream: str) -> list[int]:
    return [len(batch.inputs) for batch in batches if batch.stream == stream]


def test_the_lead_stream_makes_the_epoch_and_the_others_are_cycled_with_nothing_dropped() -> None:
    spy = Recorder()
    objective = L.cross_entropy(on="forget", to=spy) + L.cross_entropy(on="retain", to=spy)
    fit(dense(), phase(objective, epochs=2, batch_size={"forget": 4, "retain": 8}))
    assert sizes(spy.seen, "forget") == [4, 4, 2] * 2
    assert sizes(spy.seen, "retain") == [8, 8, 7] * 2
    spy.seen.clear()
    fit(dense(), phase(objective, epochs=1, batch_size=4, lead="retain"))
    assert sizes(spy.seen, "retain") == [4] * 5 + [3]
    assert sizes(spy.seen, "forget") == [4, 4, 2, 4, 4, 2]
    positions = [batch.indices for batch in spy.seen if batch.stream == "forget"]
    assert sorted(torch.cat(positions[3:]).tolist()) == list(range(10))
    spy.seen.clear()
    fit(dense(), phase(objective, steps=2, batch_size=100))
    assert sizes(spy.seen, "forget") == [10, 10]


def test_a_target_that_draws_random_labels_draws_others_in_every_step_and_the_same_again() -> None:
    program = phase(L.cross_entropy(on="forget", to=L.RandomLabels(3)), steps=4)
    spy = Recorder()
    fit(dense(), phase(L.cross_entropy(on="forget", to=spy), steps=4))
    drawn = {tuple(torch.rand(4, generator=batch.generator).tolist()) for batch in spy.seen}
    assert len(drawn) == 4
    assert same(fit(dense(), program, seed=3).model, fit(dense(), program, seed=3).model)


def test_a_cached_target_is_computed_once_a_run_or_once_an_epoch_and_hands_out_the_right_rows() -> None:
    for refresh, calls in (("once", 1), ("epoch", 4)):
        spy = Recorder()
        cached = L.cross_entropy(on="retain", to=L.Cached(spy, refresh))
        plain = fit(dense(), phase(epochs=2))
        ours = fit(dense(), phase(cached, epochs=2))
        assert len(spy.seen) == (1 if calls == 1 else 2)
        assert same(ours.model, plain.model)
        # One pass of the alternation is one epoch of the stream: its table is kept from turn to turn.
        spy.seen.clear()
        fit(dense(), Alternate([phase(cached, epochs=1), phase(ERASE, steps=1, name="erase")], 4))
        assert len(spy.seen) == calls


@pytest.mark.parametrize("batch_size", [8, 23])
def test_large_inputs_have_their_targets_computed_a_few_at_a_time(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = L.cross_entropy(on="retain", to=L.Cached(spy := Recorder()))
    before = fit(dense(), phase(objective, epochs=1, batch_size=batch_size))
    assert [len(batch.inputs) for batch in spy.seen] == [23]
    spy.seen.clear()
    monkeypatch.setattr(importlib.import_module("unlearn_kit.engine.tables"), "CHUNK_NUMBERS", 7 * 64 + 1)
    after = fit(dense(), phase(objective, epochs=1, batch_size=batch_size))
    assert [len(batch.inputs) for batch in spy.seen] == [7, 7, 7, 2]
    assert same(before.model, after.model)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((6,), 512),
        ((3, 32, 32), 512),
        ((3, 48, 48), 512),
        ((1, 64, 64), 512),
        ((3, 224, 224), 27),
        ((3, 4000, 4000), 1),
    ],
)
def test_small_images_and_the_bundled_masks_are_computed_512_at_a_time(shape: tuple[int, ...], count: int) -> None:
    assert chunk_size(math.prod(shape)) == count


class Jittered(Dataset):
    """Augmented anew at every reading, from all three global random states."""

    targets = RETAIN.targets

    def __len__(self) -> int:
        return len(RETAIN)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = RETAIN[index]
        noise = torch.rand(()).item() + float(np.random.rand()) + random.random()  # noqa: NPY002
        return x + 0.1 * noise, y


def test_augmented_data_give_the_same_bits_with_workers_and_another_seed_gives_others() -> None:
    def run(workers: int, seed: int = 1) -> nn.Module:
        program = phase(epochs=2, streams={"retain": Jittered()}, workers=workers)
        return fit(dropping(), program, seed=seed).model

    first = run(0)
    random.seed(1)
    assert same(first, run(0))
    assert same(first, run(2))
    assert not same(first, run(0, seed=2))


def test_decoding_workers_give_the_bits_of_tensors_in_memory() -> None:
    listed = [RETAIN[i] for i in range(len(RETAIN))]
    expected = fit(dropping(), phase(epochs=1)).model
    for workers in (0, 2):
        assert same(expected, fit(dropping(), phase(epochs=1, streams={"retain": listed}, workers=workers)).model)


def test_a_target_computed_for_a_whole_epoch_sees_the_augmentation_of_that_epoch() -> None:
    spy, live = Recorder(), Recorder()
    objective = L.cross_entropy(on="retain", to=L.Cached(spy, "epoch"))
    objective = objective + L.cross_entropy(on="retain", to=live, name="live")
    fit(dense(), phase(objective, epochs=2, batch_size=9, streams={"retain": Jittered()}))
    assert len(spy.seen) == 2
    for epoch, table in enumerate(spy.seen):
        for batch in live.seen[3 * epoch : 3 * epoch + 3]:
            assert torch.equal(batch.inputs, table.inputs[batch.indices])


# Which parameters


def moved(start: nn.Module, end: nn.Module) -> set[str]:
    other = dict(end.named_parameters())
    return {name for name, p in start.named_parameters() if not torch.equal(p, other[name])}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_frozen_parameters_do_not_move_by_weight_decay_or_momentum(optimizer: str) -> None:
    head = ["head.weight", "head.bias"]
    for trainable in (head, lambda name, _: name.startswith("head")):
        warm = phase(steps=2, optimizer=optimizer, weight_decay=0.1, name="warm")
        cold = phase(steps=4, optimizer=optimizer, weight_decay=0.1, trainable=trainable, name="cold")
        before, after = fit(cnn(), warm).model, fit(cnn(), [warm, cold]).model
        assert moved(before, after) == set(head)
        assert len(moved(cnn(), before)) > 10
    model = cnn().requires_grad_(False)
    model.get_parameter("head.bias").requires_grad_(True)
    assert moved(model, fit(model, phase(steps=2, weight_decay=0.1)).model) == {"head.bias"}


def test_a_frozen_parameter_that_is_named_is_trained_and_is_frozen_again_afterwards() -> None:
    model = cnn().requires_grad_(False)
    result = fit(model, phase(steps=2, trainable=["head.bias"])).model
    assert moved(model, result) == {"head.bias"}
    assert not any(p.requires_grad for p in result.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_masked_entries_do_not_move_and_the_others_move_as_if_alone(optimizer: str) -> None:
    own = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(p.shape, generator=own) < 0.5 for name, p in dense().named_parameters()}
    options: dict[str, Any] = {"steps": 5, "optimizer": optimizer, "weight_decay": 0.1, "lr": 0.01}
    start, end = dense(), fit(dense(), phase(masks=masks, **options)).model
    for name, p in end.named_parameters():
        held = start.get_parameter(name)[~masks[name]]
        assert torch.equal(p[~masks[name]], held)
        assert (p[masks[name]] != start.get_parameter(name)[masks[name]]).any()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    assert same(fit(dense(), phase(masks=everything, **options)).model, fit(dense(), phase(**options)).model)


def test_a_mask_of_numbers_scales_gradients_and_holds_where_it_is_zero() -> None:
    masks = {"head.bias": torch.tensor([1.0, 0.25, 0.0])}
    options: dict[str, Any] = {"steps": 1, "lr": 1.0, "momentum": 0.0, "trainable": ["head.bias"]}
    start, plain, masked = (
        dense(),
        fit(dense(), phase(**options)).model,
        fit(dense(), phase(masks=masks, **options)).model,
    )
    moves = [(model.get_parameter("head.bias") - start.get_parameter("head.bias")) for model in (plain, masked)]
    torch.testing.assert_close(moves[1], moves[0] * masks["head.bias"])
    decayed = fit(dense(), phase(masks=masks, **options | {"steps": 3, "weight_decay": 0.5, "momentum": 0.9})).model
    assert torch.equal(decayed.get_parameter("head.bias")[2], start.get_parameter("head.bias")[2])
    assert (decayed.get_parameter("head.bias")[:2] != start.get_parameter("head.bias")[:2]).all()


def test_clipping_counts_unmasked_entries_only() -> None:
    masks = {"head.bias": torch.tensor([True, False, False])}
    options: dict[str, Any] = {"steps": 1, "lr": 1.0, "momentum": 0.0, "trainable": ["head.bias"], "clip": 1e-3}
    start, end = dense(), fit(dense(), phase(masks=masks, **options)).model
    change = end.get_parameter("head.bias") - start.get_parameter("head.bias")
    assert abs(change[0].item()) == pytest.approx(1e-3, rel=1e-2)


def test_frozen_batch_norm_keeps_every_buffer_and_updating_moves_the_statistics() -> None:
    start = dict(cnn().named_buffers())
    frozen = dict(fit(cnn(), phase(steps=3)).model.named_buffers())
    updated = dict(fit(cnn(), phase(steps=3, batch_norm="update")).model.named_buffers())
    for name, buffer in start.items():
        assert torch.equal(frozen[name], buffer)
        assert torch.equal(updated[name], buffer) == name.startswith("normalize")


# Alternation


def alternated(rounds: int, *, shared: bool) -> nn.Module:
    """Two steps on retain data, one on forget data, in turns: schedules and streams go on from round to round."""
    model = frozen_norm(cnn())
    keep = SGD(list(model.parameters()), 0.9, 0.02)
    erase = keep if shared else SGD(list(model.parameters()), 0.5, 0.0)
    retain, forget = batches("retain", 2 * rounds, key="0.keep"), batches("forget", rounds, key="0.erase")
    for turn in range(rounds):
        for step in (2 * turn, 2 * turn + 1):
            x, y = retain[step]
            keep.step(F.cross_entropy(model(x), y), 0.1 + (0.01 - 0.1) * step / (2 * rounds))
        x, y = forget[turn]
        erase.step(-(0.5 + turn / (2 * rounds - 2)) * F.cross_entropy(model(x), y), 0.03)
    return model


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_alternation_equals_a_loop_written_by_hand(shared: bool) -> None:
    keep = phase(steps=2, lr=L.linear(0.1, 0.01), weight_decay=0.02, name="keep")
    erase = phase(-(L.linear(0.5, 1.0) * ERASE), steps=1, lr=0.03, momentum=0.5, name="erase")
    ours = fit(cnn(), Alternate([keep, erase], 4, shared_optimizer=shared), log_every=1)
    assert_close(ours.model, alternated(4, shared=shared))
    order = [record["phase"] for record in ours.history if record["phase"] == "erase" or record["step"] % 2 == 0]
    assert order[:4] == ["keep", "erase"] * 2


def test_phases_with_a_shared_optimizer_must_train_the_same_parameters() -> None:
    parts = [phase(steps=1, name="all"), phase(steps=1, name="head", trainable=["head.bias"])]
    with pytest.raises(ValueError, match=r"shared optimiser to train the same parameters, but 'head' trains"):
        fit(dense(), Alternate(parts, 2, shared_optimizer=True))
    fit(dense(), Alternate(parts, 2))


def test_a_resting_term_is_not_evaluated_and_a_step_in_which_all_rest_moves_nothing() -> None:
    spy = Recorder()
    weights: list[State] = []

    class Keep(Callback):
        def on_step(self, run: Run) -> None:
            weights.append(copy.deepcopy(run.model.state_dict()))

    objective = L.every(3) * L.cross_entropy(on="retain", to=spy)
    result = fit(dense(), phase(objective, steps=7), callbacks=[Keep()], log_every=1)
    assert len(spy.seen) == 2
    # Momentum would go on by itself if an optimiser stepped without a loss.
    assert [same(a, b) for a, b in itertools.pairwise(weights)] == [True, False, True, True, False, True]
    assert [len(record) for record in result.history] == [4, 4, 5, 4, 4, 5, 4]
    by_hand = dense()
    sgd = SGD(list(by_hand.parameters()))
    for step, (x, y) in enumerate(batches("retain", 7)):
        if step % 3 == 2:
            sgd.step(F.cross_entropy(by_hand(x), y), 0.05)
    assert_close(result.model, by_hand)


def test_a_term_that_rests_leaves_the_others_at_work() -> None:
    ours = fit(dense(), phase(KEEP + L.every(2) * -ERASE, steps=4)).model
    by_hand = dense()
    sgd = SGD(list(by_hand.parameters()))
    both = zip(batches("retain", 4), batches("forget", 4), strict=True)
    for step, ((x, y), (xf, yf)) in enumerate(both):
        loss = F.cross_entropy(by_hand(x), y)
        sgd.step(loss - F.cross_entropy(by_hand(xf), yf) if step % 2 else loss, 0.05)
    assert_close(ours, by_hand)


# History and the rest


def test_the_first_and_last_step_of_a_phase_are_logged_and_every_so_many_between() -> None:
    history = fit(dense(), [phase(steps=6, name="a"), phase(steps=1, name="b")], log_every=4).history
    assert [(record["phase"], record["step"]) for record in history] == [("a", 0), ("a", 4), ("a", 5), ("b", 0)]
    record = fit(dense(), phase(2.0 * KEEP + 3.0 * ERASE, epochs=3), log_every=1).history[-1]
    assert (record["epoch"], record["step"]) == (2, 5)
    kept, erased = record["cross_entropy(retain -> Labels)"], record["cross_entropy(forget -> Labels)"]
    assert record["total"] == pytest.approx(2 * kept + 3 * erased)


def test_the_result_says_how_long_it_took_and_that_it_was_not_stopped() -> None:
    result = fit(dense(), phase(steps=1))
    assert isinstance(result, FitResult)
    assert 0 < result.seconds < 60
    assert result.stopped is None


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": "net"}, TypeError, "expected model to be a torch.nn.Module, but got str"),
        ({"log_every": 0}, ValueError, "expected log_every to be at least 1, but got 0"),
        ({"checkpoint_every": 0}, ValueError, "expected checkpoint_every to be at least 1, but got 0"),
        ({"checkpoint": "nowhere/run"}, FileNotFoundError, "expected the folder of checkpoint to be an existing path"),
        ({"program": ERASE}, TypeError, "expected program to be a Phase, an Alternate or a sequence, but got Term"),
        ({"seed": "zero"}, TypeError, "expected seed to be an int, but got str: 'zero'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fit(**{"model": dense(), "program": phase(steps=1), **arguments})


def test_a_later_phase_that_cannot_run_is_refused_before_the_first_one_starts() -> None:
    started: list[Run] = []

    class Started(Callback):
        def on_start(self, run: Run) -> None:
            started.append(run)

    empty = TensorDataset(torch.empty(0, 1, 8, 8), torch.empty(0).long())
    for late, text in (
        (phase(steps=1, trainable=["tail"]), r"expected trainable to name parameters of the model, but got \['tail'\]"),
        (phase(steps=1, masks={"head.bias": torch.ones(2).bool()}), r"to be bool or float of shape \(3,\)"),
        (phase(epochs=1, streams={"retain": empty}), "expected dataset of stream 'retain' to hold at least one sample"),
    ):
        with pytest.raises(ValueError, match=text):
            fit(dense(), [phase(steps=1), late], callbacks=[Started()])
    assert not started


# Divergence


def raised(run: Callable[[], Any]) -> DivergenceError:
    with pytest.raises(DivergenceError) as caught:
        run()
    state = caught.value.state
    assert all(torch.isfinite(value).all() for value in state.values())
    return caught.value


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
def test_a_rate_that_diverges_stops_with_the_last_finite_weights(batch_norm: str) -> None:
    program = [phase(steps=2, name="calm"), phase(-KEEP, steps=50, lr=1e15, batch_norm=batch_norm, name="wild")]
    error = raised(lambda: fit(cnn(), program))
    assert error.phase == "wild"
    assert 0 < error.step < 50
    assert error.part in ("cross_entropy(retain -> Labels)", "parameters")
    assert f"phase 'wild' diverged at step {error.step}: {error.part!r} is not finite" in str(error)
    cnn().load_state_dict(error.state)


@L.term(reduction="batch")
def cracking(logits: Tensor) -> Tensor:
    """NaN as soon as the first batch with an even number of samples comes."""
    return logits.sum() * (math.nan if len(logits) % 2 == 0 else 0.0)


def test_a_term_that_is_not_finite_is_named_and_the_state_is_that_of_the_step_before() -> None:
    # Batches of 7, 7, 7 and 2: the last loss seen to be finite was that of the third, after two updates.
    program = phase(KEEP + cracking(on="retain", name="cracking"), epochs=1, batch_size=7)
    error = raised(lambda: fit(dense(), program))
    assert (error.phase, error.step, error.part) == ("train", 3, "cracking")
    assert same(error.state, fit(dense(), phase(steps=2, batch_size=7)).model.state_dict())


@L.term(reduction="batch")
def cliff(logits: Tensor) -> Tensor:
    """Finite, with a gradient that is not: the square root at zero."""
    return (logits * 0).sum().sqrt()


def test_a_last_update_that_is_not_finite_is_caught_as_well() -> None:
    spoiled = phase(KEEP + L.every(3) * cliff(on="retain"), steps=3)
    error = raised(lambda: fit(dense(), spoiled))
    assert (error.step, error.part) == (2, "parameters")
    assert same(error.state, fit(dense(), phase(steps=2)).model)
    earlier = raised(lambda: fit(dense(), phase(KEEP + L.every(3) * cliff(on="retain"), steps=5)))
    assert (earlier.step, earlier.part) == (3, "cross_entropy(retain -> Labels)")


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU be looked at as seldom as a device for which the host waits."""
    monkeypatch.setattr(Devices, "waits", True)


@pytest.mark.usefixtures("waiting")
def test_what_is_looked_at_seldom_still_names_the_first_bad_step() -> None:
    program = phase(KEEP + cracking(on="retain", name="cracking"), epochs=3, batch_size=7)  # steps 3, 7 and 11
    error = raised(lambda: fit(dense(), program, log_every=10))
    assert (error.phase, error.step, error.part) == ("train", 3, "cracking")
    assert same(error.state, dense().state_dict())  # as of the last look, at step 0
    error = raised(lambda: fit(dense(), phase(KEEP + cracking(on="retain", name="cracking"), epochs=1, batch_size=7)))
    assert error.step == 3
    spoiled = phase(KEEP + L.every(3) * cliff(on="retain"), steps=8)
    error = raised(lambda: fit(dense(), spoiled, log_every=3))
    assert (error.step, error.part) == (3, "cross_entropy(retain -> Labels)")


def test_how_often_it_is_looked_at_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    program = phase(KEEP + L.kl(on="retain", to=L.Uniform(3)), steps=13, batch_norm="update")
    often = fit(cnn(), program)
    monkeypatch.setattr(Devices, "waits", True)
    seldom = fit(cnn(), program)
    assert same(often.model, seldom.model)
    assert often.history == seldom.history


def test_a_generator_for_the_order_is_not_the_generator_of_targets() -> None:
    spy = Recorder()
    fit(dense(), phase(L.cross_entropy(on="retain", to=spy), steps=1))
    order = generator(derive(0, "0.train"), "order", "retain", 0)
    assert spy.seen[0].generator.initial_seed() != order.initial_seed()
