"""A quick network that never saw the forget data, to say roughly what one trained without them would say of them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Training
from unlearn_kit.metrics import predict
from unlearn_kit.models import fresh_copy
from unlearn_kit.outputs import probabilities
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import derive

PROXY = Training(epochs=3, batch_size=128, lr=cosine(0.05, 0.0), weight_decay=5e-4, batch_norm="update")
LEAST_STEPS = 60


def proxy_predictions(model: nn.Module, task: UnlearnTask, *, training: Training = PROXY, seed: int = 0) -> L.Table:
    """Return what a proxy says of each forget sample, at least as sure of itself as the original is of unseen ones.

    The proxy is the original's architecture with fresh weights, trained for a few passes on the retain data toward
    their labels. The original is no teacher: what the forget data did to it would be taught along. Where the proxy is
    less confident on the validation data than the original, having seen so little, its temperature makes up for it.

    Raises:
        ValueError: Where the model's modules cannot be given fresh weights, by their names.
    """
    phase = training.phase(L.cross_entropy(on="retain"), task, name="proxy")
    if phase.total_steps < LEAST_STEPS:  # Small data: so few passes teach nothing.
        phase = replace(phase, epochs=None, steps=LEAST_STEPS)
    fresh = fresh_copy(model, seed=derive(seed, "proxy")).requires_grad_(True)
    trained = training.fit(fresh, phase, seed=seed, device=None).model
    logits, _ = predict(trained, task.forget)
    return L.Table(probabilities(logits, _temperature(trained, model, task)))


def _temperature(proxy: nn.Module, model: nn.Module, task: UnlearnTask) -> float:
    """Return the temperature at which the proxy is as confident on validation data as the model, in [1/20, 1]."""
    if len(task.retain_validation) == 0:
        return 1.0
    theirs, own = (predict(net, task.retain_validation)[0] for net in (model, proxy))
    wanted = _confidence(theirs, 1.0)

    def above(log_temperature: float) -> float:
        return _confidence(own, math.exp(log_temperature)) - wanted

    if above(0.0) >= 0:
        return 1.0
    coldest = -math.log(20)
    return 1 / 20 if above(coldest) <= 0 else math.exp(brentq(above, coldest, 0.0, xtol=1e-4))


def _confidence(logits: Tensor, temperature: float) -> float:
    p = probabilities(logits.double(), temperature)
    return float((torch.maximum(p, 1 - p) if p.shape[1] == 1 else p.amax(1)).mean())
