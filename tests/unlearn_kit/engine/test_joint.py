"""Streams that go through the network as one batch, samples drawn by weight, and tables of goals: in the loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Phase, fit
from unlearn_kit.models import build
from unlearn_kit.seeding import generator


def images(count: int, seed: int) -> TensorImages:
    own = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=own), torch.randint(3, (count,), generator=own))


DATA = {"forget": images(7, 1), "retain": images(12, 2)}
BOTH = L.cross_entropy(on="forget") + L.cross_entropy(on="retain")


def phase(objective: L.Objective | L.Term = BOTH, **options: Any) -> Phase:
    streams = {name: DATA[name] for name in L.Objective(objective._terms).streams}
    return Phase(objective, streams, **{"steps": 1, "batch_size": 12, "lr": 0.1, "momentum": 0.0, **options})


def test_a_joint_step_is_one_batch_to_batch_norm_and_the_same_losses() -> None:
    model = build("small-cnn", 3, seed=0, width=2).eval()
    fitted = fit(model, phase(joint=True, batch_norm="update")).model
    by_hand = copy.deepcopy(model).train()
    parts = [DATA["forget"].batch(torch.arange(7)), DATA["retain"].batch(torch.arange(12))]
    logits = by_hand(torch.cat([x for x, _ in parts]))
    loss = sum(F.cross_entropy(z, y) for z, (_, y) in zip(logits.split([7, 12]), parts, strict=True))
    loss.backward()
    for (name, p), (_, own) in zip(by_hand.named_parameters(), fitted.named_parameters(), strict=True):
        torch.testing.assert_close(own, (p - 0.1 * p.grad).detach(), atol=1e-5, rtol=0, msg=name)
    for (name, held), (_, own) in zip(by_hand.named_buffers(), fitted.named_buffers(), strict=True):
        torch.testing.assert_close(own, held, atol=1e-5, rtol=0, msg=name)
    apart = fit(model, phase(batch_norm="update")).model
    assert not torch.allclose(apart.block1[1].running_mean, fitted.block1[1].running_mean)


def test_with_batch_norm_at_rest_joint_and_apart_are_one_step() -> None:
    model = build("small-cnn", 3, seed=0, width=2).eval()
    together, apart = fit(model, phase(joint=True)).model, fit(model, phase()).model
    for a, b in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_a_stream_whose_terms_rest_is_not_run() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.seen = nn.Linear(64, 3), []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            return self.line(x.flatten(1))

    model = Counting()
    batches = {name: L.Batch(*data.batch(torch.arange(len(data)))) for name, data in DATA.items()}
    (0.0 * L.cross_entropy(on="forget") + L.cross_entropy(on="retain")).evaluate(model, batches, joint=True)
    BOTH.evaluate(model, batches, joint=True)
    assert model.seen == [12, 19]


def test_the_loop_draws_by_the_weights_it_was_given() -> None:
    seen: list[Tensor] = []

    class Noting(L.Labels):
        def __call__(self, batch: L.Batch) -> L.Goal:
            assert batch.indices is not None
            seen.append(batch.indices)
            return super().__call__(batch)

    weights = torch.tensor([0.0, 0, 1, 0, 0, 2, 0])
    asked = phase(L.cross_entropy(on="forget", to=Noting()), steps=3, batch_size=9, sampling={"forget": weights})
    fit(build("mlp", 3, seed=0, hidden=(4,)), asked)
    drawn = torch.cat(seen[-3:])
    assert len(drawn) == 27
    assert set(drawn.tolist()) == {2, 5}


def test_a_cached_target_of_a_weighted_stream_knows_every_sample_and_its_position() -> None:
    class Position:
        gives = ("logits",)

        def __call__(self, batch: L.Batch) -> L.Goal:
            assert batch.indices is not None
            values = torch.zeros(len(batch.inputs), 3)
            values[:, 0] = batch.indices.float()
            return L.Goal("logits", values)

    cached = L.Cached(Position())
    told: list[Tensor] = []

    @L.term(takes=("logits",))
    def noted(logits: Tensor, goal: L.Goal) -> Tensor:
        told.append(goal.values[:, 0])
        return logits.square().mean(1)

    weights = torch.rand(7, generator=generator(0, "weights"))
    asked = phase(noted(on="forget", to=cached), steps=4, batch_size=5, sampling={"forget": weights})
    fit(build("mlp", 3, seed=0, hidden=(4,)), asked)
    assert set(torch.cat(told[-4:]).tolist()) > {0.0}


def test_a_wrong_number_of_weights_is_refused_when_the_phase_is_built() -> None:
    with pytest.raises(ValueError, match="sampling of stream 'forget' to hold one weight for each of its 7 samples"):
        phase(sampling={"forget": torch.ones(3)})
    with pytest.raises(ValueError, match="expected every name in sampling to be one of"):
        phase(sampling={"forgot": torch.ones(3)})
