"""The baselines of 2024 to 2026: one step of each by hand, and what sets it apart."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import hamu, lotus, munba, neg_grad_plus, negmerge, oracle_matching, regun, reload, rurk, ugradsl
from algorithms.lotus import GumbelSoftmax, Uncertainty
from algorithms.regun import class_predictions
from algorithms.rurk import recognition
from algorithms.ugradsl import shares_near
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data import in_order
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.engine import Cone, Run, facts_of, train
from unlearn_kit.gradients import mean_gradients
from unlearn_kit.metrics import accuracy


def images(count: int, seed: int) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 6, generator=source), torch.arange(count) % 4)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def of_class() -> UnlearnTask:
    return UnlearnTask.forget_class(images(32, 0), images(32, 1), 1)


def of_samples() -> UnlearnTask:
    return UnlearnTask.forget_samples(images(32, 0), images(32, 1), [1, 2, 3, 8], num_classes=4)


ONE = {"steps": 1, "lr": 0.1, "batch_size": 99, "momentum": 0.0}


def gradients(model: nn.Module, task: UnlearnTask) -> list[list[torch.Tensor]]:
    """Gradients of CE on forget and on retain, by autograd."""
    found = []
    for part in (task.forget, task.retain):
        x, y = load_tensors(part)
        found.append(list(torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))))
    return found


def moved(model: nn.Module, step: list[torch.Tensor], lr: float = 0.1) -> list[torch.Tensor]:
    return [p.detach() - lr * d for p, d in zip(model.parameters(), step, strict=True)]


def test_munba_steps_along_the_bargain_of_ascent_and_descent(model):
    task = of_class()
    forget, retain = gradients(model, task)
    one = torch.cat([-g.flatten() for g in forget])
    two = torch.cat([g.flatten() for g in retain])
    cosine = one @ two / one.norm() / two.norm()
    shares = [1 / (v.norm() * (1 + cosine).sqrt()) for v in (one, two)]
    step = [shares[0] * -a + shares[1] * b for a, b in zip(forget, retain, strict=True)]
    found = munba(model, task, **ONE).model
    for a, b in zip(found.parameters(), moved(model, step), strict=True):
        torch.testing.assert_close(a, b)
    # Neither side's gradient would have the other's step undone.
    flat = torch.cat([d.flatten() for d in step])
    assert flat @ one > 0
    assert flat @ two > 0


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9])
def test_hamu_solves_its_problem_of_each_tensor(model, cosine):
    task = of_class()
    forget, retain = gradients(model, task)
    found = hamu(model, task, cosine=cosine, clip=None, doublings=0, **ONE).model
    draw = torch.Generator().manual_seed(0)
    for p, q, g_f, g_r in zip(model.parameters(), found.parameters(), forget, retain, strict=True):
        d = (q.detach() - p.detach()).flatten() / 0.1
        f, r = g_f.flatten(), g_r.flatten()
        radius, wanted = r.norm(), cosine * r.norm() * f.norm()
        assert d.norm() <= radius * (1 + 1e-4)
        assert f @ d >= wanted - 1e-5 * radius * f.norm()
        # No other point of the ball that forgets enough keeps more.
        others = torch.randn(20_000, len(d), generator=draw)
        others = radius * others / others.norm(dim=1, keepdim=True)
        others = torch.cat([others, d + 0.05 * others])
        others = others * (radius / others.norm(dim=1, keepdim=True)).clamp(max=1)
        allowed = others[others @ f >= wanted]
        assert len(allowed)
        assert (allowed @ r).min() >= d @ r - 1e-4 * radius * r.norm()


def test_the_cone_keeps_what_is_in_it_and_turns_what_is_opposed():
    one, two = [torch.tensor([1.0, 0.0])], [torch.tensor([3.0, 1.0])]
    assert torch.equal(Cone(0.5)(one, two)[0], two[0])
    torch.testing.assert_close(Cone(0.5)(one, [torch.tensor([-2.0, 0.0])])[0], torch.tensor([1.0, 0.0]))
    assert torch.equal(Cone(0.5)([torch.zeros(2)], two)[0], two[0])
    turned = Cone(0.5)(one, [torch.tensor([0.0, 2.0])])[0]
    torch.testing.assert_close(turned, torch.tensor([1.0, math.sqrt(3)]))
    with pytest.raises(ValueError, match=r"expected cosine in \[0, 1\], but got 1.5"):
        Cone(1.5)


def test_regun_leads_toward_the_mean_prediction_on_unseen_data_of_the_class(model):
    task = of_samples()
    x, y = load_tensors(task.retain_validation)
    wanted = torch.stack([model(x)[y == label].softmax(1).mean(0) for label in range(4)]).detach()
    torch.testing.assert_close(class_predictions(model, task), wanted)
    found = regun(model, task, retain_weight=0.5, clip=None, **ONE).model
    forgotten, labels = load_tensors(task.forget)
    q = wanted[labels]
    kl = (q * (q.log() - model(forgotten).log_softmax(1))).sum(1).mean()
    retained, kept = load_tensors(task.retain)
    (kl + 0.5 * F.cross_entropy(model(retained), kept)).backward()
    for a, b in zip(found.parameters(), moved(model, [p.grad for p in model.parameters()]), strict=True):
        torch.testing.assert_close(a, b)


def test_regun_takes_a_class_out_that_is_forgotten_as_a_whole(model):
    table = class_predictions(model, of_class())
    torch.testing.assert_close(table.sum(1), torch.ones(4))
    assert table[1, 1] == 0
    assert (table[0] > 0).all()


def test_lotus_s_temperature_follows_the_distance_to_unseen_data(model):
    task = of_samples()
    heat = Uncertainty(task, 0.25, 8.0, -1.0)
    run = Run(model)
    heat.on_start(run)
    above = accuracy(model, task.forget) - 0.25
    assert heat.temperature == pytest.approx(math.exp(8 * above))
    heat.on_epoch(run)
    assert run.stopping is None
    heat.end = accuracy(model, task.forget)
    heat.on_epoch(run)
    assert run.stopping == f"forget accuracy = {heat.end:.4g}"


def test_lotus_s_targets_are_gumbel_softmax_samples():
    logits = torch.tensor([[2.0, 0.0, -1.0]]).repeat(20_000, 1)
    batch = L.Batch(logits, torch.zeros(len(logits), dtype=torch.int64))
    draws = GumbelSoftmax(nn.Identity())(batch)
    shares = torch.bincount(draws.values, minlength=3) / len(logits)
    p = logits[0].softmax(0)
    assert (shares - p).abs().max() < 4 * float((p * (1 - p) / len(logits)).sqrt().max())
    heat = Uncertainty(of_samples(), 0.0, 8.0, -1.0)
    heat.temperature = 1000.0
    soft = GumbelSoftmax(nn.Identity(), heat)(batch)
    torch.testing.assert_close(soft.values, torch.full_like(logits, 1 / 3), atol=0.01, rtol=0)


def test_lotus_stops_at_the_level_of_unseen_data(model):
    result = lotus(model, of_samples(), epochs=3, batch_size=99, strength=0.0)
    assert 0 <= result.details["unseen"] <= 1
    assert lotus(model, of_class(), epochs=1, batch_size=99).details["unseen"] == 0


def test_rurk_climbs_on_recognised_neighbours_only():
    forward = nn.Identity()
    x = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    batch = L.Batch(x, torch.tensor([0, 1]))
    values = recognition(on="forget", radius=0.0, draws=3)
    found = values.function(forward, batch, radius=0.0, draws=3)
    torch.testing.assert_close(found, torch.tensor([-math.log1p(math.exp(-3.0)), 0.0]))


def test_rurk_is_no_more_right_near_the_forget_samples_than_on_them(model):
    task = of_samples()
    known = train(model, images(32, 0), epochs=200, batch_size=32, lr=0.5).model
    x, y = load_tensors(task.forget)
    assert (known(x).argmax(1) == y).all()
    found = rurk(known, task, steps=200, lr=0.1, radius=0.02).model
    near = x.repeat(50, 1) + 0.02 * (2 * torch.rand(50 * len(x), 6, generator=torch.Generator().manual_seed(1)) - 1)
    assert (found(near).argmax(1) == y.repeat(50)).float().mean() < 0.5


@pytest.mark.parametrize("given", [False, True])
def test_reload_climbs_the_forget_data_s_part_of_the_stored_gradient(model, given):
    task = of_samples()
    data = images(32, 0)
    stored = mean_gradients(model, in_order(data, 99)) if given else None
    found = reload(model, task, stored=stored, share=0.0, epochs=1, lr=0.0, batch_size=99).model
    own, _ = gradients(model, task)
    share = 4 / 32
    for a, b in zip(found.parameters(), moved(model, [-0.325 * share * g for g in own], lr=1.0), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("end", ["low", "high"])
def test_reload_gives_fresh_values_to_one_end_of_the_ratios(model, end):
    task = of_samples()
    options = {"epochs": 1, "lr": 0.0, "batch_size": 99}
    kept = reload(model, task, share=0.0, **options).model
    found = reload(model, task, share=0.25, reset=end, **options)
    (own, retain), s = gradients(model, task), 4 / 32
    ratios = torch.cat(
        [
            ((s * a).abs() + 1e-8).div((s * a + (1 - s) * b).abs() + 1e-8).flatten()
            for a, b in zip(own, retain, strict=True)
        ]
    )
    changed = torch.cat([(a != b).flatten() for a, b in zip(found.model.parameters(), kept.parameters(), strict=True)])
    assert found.details["reset"] == changed.sum() == round(0.25 * len(ratios))
    edge = ratios[changed].max() if end == "low" else ratios[changed].min()
    others = ratios[~changed]
    assert (others >= edge * (1 - 1e-3)).all() if end == "low" else (others <= edge * (1 + 1e-3)).all()


def test_reload_refuses_a_gradient_of_another_model(model):
    other = {name: g[:1] for name, g in mean_gradients(model, in_order(images(8, 0), 8)).items()}
    with pytest.raises(ValueError, match=r"expected stored\['0.weight'\] to be of shape \(8, 6\), but got \(1, 6\)"):
        reload(copy.deepcopy(model), of_samples(), stored=other)


SGD = {**ONE, "optimizer": "sgd"}


@pytest.mark.parametrize("rate", [None, 0.4])
def test_ugradsl_climbs_from_labels_smoothed_at_a_negative_rate(model, rate):
    task = of_samples()
    found = ugradsl(model, task, retain_share=0.7, smoothing=rate, near=0.05, **SGD)
    x, y = load_tensors(task.forget)
    near = shares_near(model, task, 0.05, seed=0)
    assert 0 < near.max() < 1
    alpha = -(near if rate is None else torch.full((4,), rate))[:, None]
    labels = (1 - alpha) * F.one_hot(y, 4) + alpha / 4  # as published, with alpha < 0
    assert found.details["smoothing"] == pytest.approx(float(-alpha.mean()))
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    kept, known = load_tensors(task.retain)
    ascent = -(labels * model(x).log_softmax(1)).sum(1).mean()
    (0.7 * F.cross_entropy(model(kept), known) - 0.3 * ascent).backward()
    for a, b in zip(found.model.parameters(), moved(model, [p.grad for p in model.parameters()]), strict=True):
        torch.testing.assert_close(a, b)


def test_ugradsl_counts_the_retain_samples_whose_features_are_near(model):
    task = of_samples()
    own, others = (model[:2](load_tensors(part)[0]).detach().double().numpy() for part in (task.forget, task.retain))
    distances = [[(1 - a @ b / np.sqrt((a @ a) * (b @ b))) / 2 for b in others] for a in own]
    near = float(np.median(distances))  # The mean of two distances: neither is at the edge.
    wanted = (np.array(distances) <= near).mean(1)
    np.testing.assert_allclose(shares_near(model, task, near, seed=0), wanted)


def test_ugradsl_without_smoothing_is_neg_grad_plus(model):
    task = of_samples()
    plain = neg_grad_plus(model, task, alpha=0.7, **SGD).model
    found = ugradsl(model, task, retain_share=0.7, smoothing=0.0, **SGD).model
    for a, b in zip(found.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("preset", "steps"), [("ugradsl", 1), ("plus", 4)])
def test_ugradsl_plus_goes_through_the_retain_data(model, preset, steps):
    result = ugradsl(model, of_samples(), preset=preset, epochs=1, batch_size={"forget": 4, "retain": 7})
    assert result.history[-1]["step"] == steps - 1


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_oracle_matching_steps_toward_the_mean_logits_of_retrained_models(model, weight):
    task = of_samples()
    references = [nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 4))]
    found = oracle_matching(model, task, references=references, retain_weight=weight, clip=None, **SGD).model
    values = []
    for part in (task.forget, task.retain):
        x, _ = load_tensors(part)
        values.append((model(x) - (references[0](x) + references[1](x)).detach() / 2).square().mean())
    (values[0] + weight * values[1]).backward()
    for a, b in zip(found.parameters(), moved(model, [p.grad for p in model.parameters()]), strict=True):
        torch.testing.assert_close(a, b)


def test_oracle_matching_says_what_a_retrained_model_says_and_is_told_apart_from_methods(model):
    task = of_samples()
    oracle = nn.Sequential(nn.Linear(6, 4)).requires_grad_(False)
    found = oracle_matching(model, task, references=[oracle], steps=300, lr=0.02).model
    x, _ = load_tensors(task.forget)
    assert (found(x) - oracle(x)).square().mean() < 0.01 * (model(x) - oracle(x)).square().mean()
    assert facts_of(oracle_matching).reads_reference
    assert not facts_of(ugradsl).reads_reference
    with pytest.raises(ValueError, match="expected references to hold at least one model retrained without"):
        oracle_matching(model, task)


def test_negmerge_takes_away_what_all_fine_tunings_changed_alike(model):
    task = of_samples()
    rates, changes = (0.5, 2.0, 1.0), []
    options = {**SGD, "steps": 2, "lr": 0.3}
    found = negmerge(model, task, rates=rates, strength=1.5, **options)
    x, y = load_tensors(task.forget)
    for rate in rates:
        tuned = copy.deepcopy(model)
        for _ in range(2):
            step = torch.autograd.grad(F.cross_entropy(tuned(x), y), list(tuned.parameters()))
            with torch.no_grad():
                for p, g in zip(tuned.parameters(), step, strict=True):
                    p -= 0.3 * rate * g
        changes.append(
            np.concatenate(
                [
                    (q - p).detach().double().numpy().ravel()
                    for p, q in zip(model.parameters(), tuned.parameters(), strict=True)
                ]
            )
        )
    kept = np.abs(np.sign(changes).sum(0)) == 3
    assert 0 < kept.mean() < 1
    wanted = np.where(kept, -1.5 * np.mean(changes, axis=0), 0)
    moves = [
        (q - p).detach().numpy().ravel() for p, q in zip(model.parameters(), found.model.parameters(), strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(moves), wanted, atol=1e-6)
    assert found.details == {"strength": 1.5, "agreement": pytest.approx(kept.mean())}


def test_negmerge_goes_as_far_as_it_takes_to_forget_and_no_further(model):
    known = train(model, images(32, 0), epochs=200, batch_size=32, lr=0.5).model
    task = of_class()
    assert accuracy(known, task.forget) == 1
    found = negmerge(known, task, lr=1e-3, retain_drop=1.0)
    assert accuracy(found.model, task.forget) <= 0.02
    near = negmerge(known, task, lr=1e-3, strength=0.7 * found.details["strength"])
    assert accuracy(near.model, task.forget) > 0.02
    with pytest.raises(ValueError, match=r"expected rates to hold at least two, one a fine-tuning, but got \[1.0\]"):
        negmerge(known, task, rates=[1.0])
