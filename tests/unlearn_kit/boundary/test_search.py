"""The boundary search against a numpy version of its formulas, and what it promises about the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.outputs import label_margin, predicted_labels
from unlearn_kit.schedules import Schedule, exponential, inverse, linear

BATCH, PIXELS, CLASSES = 7, 12, 4


def own(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_model(scale: float = 1.0, classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> nn.Linear:
    model = nn.Linear(PIXELS, classes, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(scale * torch.randn(classes, PIXELS, generator=own(3), dtype=torch.float64))
        model.bias.copy_(0.1 * torch.randn(classes, generator=own(4), dtype=torch.float64))
    return model


def conv_model(outputs: int = 3, dense: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5)]
        head = [nn.Conv2d(4, outputs, 1)] if dense else [nn.Flatten(), nn.Linear(4 * 25, outputs)]
        model = nn.Sequential(*body, *head)
    model[1].running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    model[1].running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 0.7]))
    return model


def inputs(dtype: torch.dtype = torch.float64, batch: int = BATCH) -> Tensor:
    return torch.rand(batch, PIXELS, generator=own(0), dtype=torch.float64).to(dtype)


def pictures(batch: int = BATCH) -> Tensor:
    return torch.rand(batch, 1, 5, 5, generator=own(0))


def labels(batch: int = BATCH, classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, (batch,), generator=own(1))


def perturbations(steps: int, x: Tensor) -> Tensor:
    return torch.randn(steps, *x.shape, generator=own(2), dtype=torch.float64).to(x)


def reference(
    model: nn.Linear, x: Tensor, y: Tensor, z: Tensor, *, radius: float, steps: int, closeness: Callable[[int], float],
    noise: Callable[[int], float], size: Callable[[int], float], relative: bool, vertices: bool,
) -> np.ndarray:  # fmt: skip
    """The search for a linear classifier, in numpy: its gradient is ``W'(p - onehot)``."""
    weight, bias = (p.detach().double().numpy() for p in (model.weight, model.bias))
    start = x.double().numpy()
    low, high = np.maximum(start - radius, 0), np.minimum(start + radius, 1)
    points = start.copy()
    for step in range(steps):
        p = softmax(points @ weight.T + bias, axis=1)
        p[np.arange(len(p)), y.numpy()] -= 1
        gradient = p @ weight
        scale = noise(step) * (np.sqrt((gradient**2).mean(axis=1, keepdims=True)) if relative else 1.0)
        sign = np.sign(gradient - closeness(step) * (points - start) + scale * z[step].double().numpy())
        if vertices:
            points = (1 - size(step)) * points + size(step) * np.where(sign > 0, high, low)
        else:
            points = np.clip(points + size(step) * sign, low, high)
    return points


# --- the update -----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
@pytest.mark.parametrize("noise", [0.0, 0.7, exponential(1.0, 0.3)])
@pytest.mark.parametrize("closeness", [0.0, 2.5, inverse(4.0)])
@pytest.mark.parametrize("step_size", [None, 0.15, linear(0.3, 0.05)])
def test_every_variant_agrees_with_numpy(noise_scale, update, noise, closeness, step_size):
    model, x, y, radius, steps = linear_model(), inputs(), labels(), 0.25, 5
    z = perturbations(steps, x)
    search = PerturbedSign(
        radius, steps, step_size, closeness, noise, noise_scale=noise_scale, update=update
    )  # fmt: skip
    found = search.search(model, x, y, perturbations=z)

    t = np.arange(1, steps + 1)
    default = 2 / (t + 1) if update == "frank-wolfe" else np.full(steps, 2.5 * radius / steps)
    sizes = {None: default, 0.15: np.full(steps, 0.15)}.get(step_size, np.linspace(0.3, 0.05, steps))
    noises = np.full(steps, noise) if isinstance(noise, float) else np.exp(-0.3 * t)
    pulls = np.full(steps, closeness) if isinstance(closeness, float) else 4 / t
    expected = reference(
        model, x, y, z, radius=radius, steps=steps, closeness=pulls.item, noise=noises.item, size=sizes.item,
        relative=noise_scale == "relative", vertices=update == "frank-wolfe",
    )  # fmt: skip
    assert np.allclose(found.inputs.numpy(), expected, atol=1e-12)
    logits = expected @ model.weight.detach().numpy().T + model.bias.detach().numpy()
    assert np.allclose(found.logits.numpy(), logits)
    assert np.array_equal(found.labels.numpy(), logits.argmax(axis=1))
    assert np.array_equal(found.flipped.numpy(), logits.argmax(axis=1) != predicted_labels(model(x)).numpy())


@pytest.mark.parametrize("make", [linear_model, conv_model])
@pytest.mark.parametrize("closeness", [0.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_noiseless_step_is_the_fast_gradient_sign(make, closeness, dtype):
    model = make().to(dtype).eval()
    x = (inputs() if make is linear_model else pictures()).to(dtype)
    y = labels(classes=3)
    found = PerturbedSign(radius=0.1, closeness=closeness).search(model, x, y)

    leaf = x.clone().requires_grad_(True)
    F.cross_entropy(model(leaf), y).backward()
    assert torch.equal(found.inputs, (x + 0.1 * leaf.grad.sign()).clamp(0, 1))


def test_one_step_has_no_distance_to_be_pulled_back_from():
    model, x, y = linear_model(), inputs(), labels()
    z = perturbations(1, x)
    free, held = (
        PerturbedSign(0.1, closeness=closeness, noise=0.5).search(model, x, y, perturbations=z) for closeness in (0, 50)
    )
    assert torch.equal(free.inputs, held.inputs)


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
def test_closeness_keeps_points_close(update):
    model, x, y = linear_model(), inputs(), labels()
    distances = [
        float((PerturbedSign(0.3, 12, closeness=c, update=update).search(model, x, y).inputs - x).abs().mean())
        for c in (0, 4, 8, 16)  # Of the size of the gradients and beyond.
    ]
    assert all(far > 1.05 * near for far, near in pairwise(distances))


def test_the_search_climbs():
    model, x, y = linear_model(), inputs(), labels()
    before = F.cross_entropy(model(x), y, reduction="none")
    for update in ("projected", "frank-wolfe"):
        found = PerturbedSign(0.2, 6, update=update).search(model, x, y)
        assert (F.cross_entropy(model(found.inputs), y, reduction="none") > before).all()


@given(
    radius=st.floats(0, 0.6),
    steps=st.integers(1, 4),
    step_size=st.one_of(st.none(), st.floats(0.01, 1)),
    noise=st.floats(0, 5),
    distribution=st.sampled_from(["normal", "uniform", "laplace", "cauchy"]),
    update=st.sampled_from(["projected", "frank-wolfe"]),
    bounds=st.sampled_from([(0.0, 1.0), (-0.5, 1.5), None]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_points_stay_in_the_box_and_in_bounds(radius, steps, step_size, noise, distribution, update, bounds, seed):
    model, x = linear_model(dtype=torch.float32), inputs(torch.float32)
    search = PerturbedSign(radius, steps, step_size, 0.1, noise, distribution, update=update, bounds=bounds, seed=seed)
    points = search.search(model, x, labels()).inputs
    assert points.shape == x.shape
    # To the last bit: the box of the definition, computed as floats.
    assert ((points >= x - radius) & (points <= x + radius)).all()
    if bounds is not None:
        assert ((points >= bounds[0]) & (points <= bounds[1])).all()


def test_the_first_frank_wolfe_step_goes_to_the_vertex():
    model, x, y = linear_model(dtype=torch.float32), inputs(torch.float32), labels()
    found = PerturbedSign(0.3, update="frank-wolfe").search(model, x, y)
    leaf = x.clone().requires_grad_(True)
    F.cross_entropy(model(leaf), y, reduction="sum").backward()
    low, high = (x - 0.3).clamp(min=0), (x + 0.3).clamp(max=1)
    assert torch.equal(found.inputs, torch.where(leaf.grad > 0, high, low))


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
def test_a_pixel_that_does_not_matter_stays(update):
    model = linear_model()
    with torch.no_grad():
        model.weight[:, 3] = 0
    x = inputs()
    found = PerturbedSign(0.2, 3, update=update).search(model, x, labels())
    moved = (found.inputs != x).any(dim=0)
    assert moved.tolist() == [pixel != 3 for pixel in range(PIXELS)]


@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
def test_relative_noise_does_not_depend_on_the_gradients_size(noise_scale):
    x, y = inputs(), labels()
    z = perturbations(1, x)
    # The same directions of the gradient at a hundredth of the size.
    models = [linear_model(scale) for scale in (1e-3, 1e-5)]
    for model in models:
        model.bias.data.zero_()
    search = PerturbedSign(0.2, noise=1.0, noise_scale=noise_scale)
    large, small = (search.search(model, x, y, perturbations=z).inputs for model in models)
    pure_noise = (x + 0.2 * z[0].sign()).clamp(0, 1)
    assert torch.equal(large, small) == (noise_scale == "relative") or torch.equal(small, pure_noise)
    assert torch.equal(small, pure_noise) == (noise_scale == "absolute")


# --- samples the model is certain of --------------------------------------------------------------


def certain(margin: float) -> tuple[nn.Linear, Tensor, Tensor, np.ndarray]:
    """A float32 classifier that is certain of every sample, and its exact gradient but for a positive factor."""
    model, x = linear_model(dtype=torch.float32), inputs(torch.float32)
    y = torch.zeros(BATCH, dtype=torch.int64)
    with torch.no_grad():
        model.bias.zero_()
        z = model(x)
        model.bias[0] = margin + (z[:, 1:].amax(dim=1) - z[:, 0]).max()
    weight, bias = (p.detach().double().numpy() for p in (model.weight, model.bias))
    others = softmax((x.double().numpy() @ weight.T + bias)[:, 1:], axis=1)
    # sum_i p_i (W_i - W_y): no p_y - 1, which would round to zero even in double precision, and no factor 1 - p_y.
    gradient = others @ (weight[1:] - weight[0])
    return model, x, y, gradient


@pytest.mark.parametrize("margin", [60.0, 80.0, 100.0, 1e4])
@pytest.mark.parametrize("closeness", [0.0, 0.5])
def test_certainty_does_not_turn_the_direction(margin, closeness):
    model, x, y, gradient = certain(margin)
    found = PerturbedSign(0.1, bounds=None, closeness=closeness).search(model, x, y)
    assert np.array_equal((found.inputs - x).sign().numpy(), np.sign(gradient))

    leaf = x.clone().requires_grad_(True)
    F.cross_entropy(model(leaf), y, reduction="sum").backward()
    assert (leaf.grad.sign().numpy() != np.sign(gradient)).mean() > 0.2  # What the textbook's loss would do.


@pytest.mark.parametrize("margin", [5.0, 60.0, 100.0, 1e4])
def test_relative_noise_reaches_samples_of_any_certainty(margin):
    model, x, y, gradient = certain(margin)
    z = perturbations(1, x)
    found = PerturbedSign(0.1, noise=1.0, noise_scale="relative", bounds=None).search(model, x, y, perturbations=z)
    rms = np.sqrt((gradient**2).mean(axis=1, keepdims=True))
    expected = np.sign(gradient / rms + z[0].numpy())
    assert np.array_equal((found.inputs - x).sign().numpy(), expected)
    assert (expected != np.sign(gradient)).any()


@pytest.mark.parametrize("update", ["projected", "frank-wolfe"])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("flips", ["all", "any"])
def test_no_sample_stays_where_logits_are_twenty_times_as_large(update, outputs, flips):
    """The margins are of 100 and more, at which the loss has no gradient that a float can hold."""
    model, x = conv_model(outputs, dense=True).eval(), pictures()
    with torch.no_grad():
        model[-1].bias[0] += 5
        y = predicted_labels(model(x))
        scale = 150 / label_margin(model(x), y).min()
        model[-1].weight.mul_(scale)
        model[-1].bias.mul_(scale)
    search = PerturbedSign(0.2, 3, update=update, flips=flips)
    found = search.search(model, x, y)
    assert ((found.inputs != x).flatten(1).any(1)).all()
    # In double precision these losses are far above the smallest number.
    exact = search.search(copy.deepcopy(model).double(), x.double(), y)
    assert (found.inputs.double() - exact.inputs).abs().max() < 1e-6
    assert (label_margin(found.logits, y) < label_margin(model(x), y)).flatten(1).any(1).all()


@pytest.mark.parametrize("margin", [5.0, 100.0])
def test_a_certificate_is_of_the_loss_and_not_of_what_is_climbed_in_its_place(margin):
    model, x, y, _ = certain(margin)
    search = PerturbedSign(0.1, 2, bounds=None)
    plain, judged = search.search(model, x, y), search.search(model, x, y, certificate=True)
    assert torch.equal(plain.inputs, judged.inputs)
    exact = search.search(copy.deepcopy(model).double(), x.double(), y, certificate=True)
    for name, value in vars(judged.certificate).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            torch.testing.assert_close(value.double(), getattr(exact.certificate, name), rtol=1e-3, atol=1e-6)


# --- independence of the batch --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
@pytest.mark.parametrize("make", [linear_model, conv_model])
def test_samples_do_not_see_each_other(size, stop, noise_scale, make):
    model = make().double()
    x, y = (inputs() if make is linear_model else pictures().double()), labels(classes=3)
    z = perturbations(4, x)
    search = PerturbedSign(0.2, 4, closeness=1.0, noise=0.3, noise_scale=noise_scale, stop_when_flipped=stop)
    whole = search.search(model, x, y, perturbations=z)
    parts = [search.search(model, x[at], y[at], perturbations=z[:, at]) for at in torch.arange(BATCH).split(size)]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert torch.equal(torch.cat([part.flipped for part in parts]), whole.flipped)
    assert torch.allclose(torch.cat([part.logits for part in parts]), whole.logits, atol=1e-12)


# --- randomness -----------------------------------------------------------------------------------


def test_perturbations_come_from_the_seed_or_the_generator_alone():
    model, x, y = linear_model(), inputs(), labels()
    before = torch.get_rng_state()

    def points(seed=None, **options):
        return PerturbedSign(0.2, 3, noise=1.0, seed=seed).search(model, x, y, **options).inputs

    assert torch.equal(points(5), points(5))
    assert torch.equal(points(5), points(1, generator=own(5)))
    assert torch.equal(points(), points(0))
    assert not torch.equal(points(5), points(6))
    shared = own(5)
    assert not torch.equal(points(generator=shared), points(generator=shared))
    assert torch.equal(torch.get_rng_state(), before)


def test_each_distribution_gives_its_own_points():
    model, x, y = linear_model(), inputs(), labels()
    found = [
        PerturbedSign(0.2, noise=1.0, noise_distribution=name, seed=0).search(model, x, y).inputs
        for name in ("normal", "uniform", "laplace", "cauchy")
    ]
    assert len({tuple(points.flatten().tolist()) for points in found}) == 4


@pytest.mark.parametrize(("noise", "known"), [(0.0, True), (0, True), (0.1, False), (linear(0, 0), False)])
def test_whether_points_depend_on_the_sample_alone_is_known_beforehand(noise, known):
    assert PerturbedSign(0.1, noise=noise).deterministic is known


# --- stopping -------------------------------------------------------------------------------------


def test_samples_that_changed_their_label_are_left_where_they_did():
    model, x = linear_model(), inputs()
    y = predicted_labels(model(x))
    steps = 8
    paths = [PerturbedSign(0.6, k, step_size=0.04).search(model, x, y) for k in range(1, steps + 1)]
    flips = torch.stack([found.flipped for found in paths])
    first = torch.where(flips.any(dim=0), flips.long().argmax(dim=0), steps - 1)
    assert len(first.unique()) > 2  # Else the test shows nothing.
    found = PerturbedSign(0.6, steps, step_size=0.04, stop_when_flipped=True).search(model, x, y)
    for sample in range(BATCH):
        assert torch.equal(found.inputs[sample], paths[first[sample]].inputs[sample])
        assert found.labels[sample] == paths[first[sample]].labels[sample]
    assert torch.equal(found.flipped, flips.any(dim=0))


def test_a_dense_sample_moves_until_all_of_its_pixels_changed():
    model, x = conv_model(2, dense=True).eval(), pictures(3)
    y = predicted_labels(model(x))
    steps = 12
    paths = [PerturbedSign(1.0, k, step_size=0.08).search(model, x, y) for k in range(1, steps + 1)]
    flips = torch.stack([found.flipped.flatten(1).all(dim=1) for found in paths])
    first = torch.where(flips.any(dim=0), flips.long().argmax(dim=0), steps - 1)
    found = PerturbedSign(1.0, steps, step_size=0.08, stop_when_flipped=True).search(model, x, y)
    for sample in range(3):
        assert torch.equal(found.inputs[sample], paths[first[sample]].inputs[sample])


# --- dense and single-logit outputs ---------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_masks_are_climbed_as_the_mean_of_their_pixels(outputs):
    model, x = conv_model(outputs, dense=True).eval(), pictures()
    y = torch.randint(max(outputs, 2), (BATCH, 5, 5), generator=own(1))
    found = PerturbedSign(0.1).search(model, x, y)
    assert found.logits.shape == (BATCH, outputs, 5, 5)
    assert found.labels.shape == found.flipped.shape == (BATCH, 5, 5)
    assert found.labels.dtype == torch.int64
    assert torch.equal(found.flipped, predicted_labels(model(found.inputs)) != predicted_labels(model(x)))

    leaf = x.clone().requires_grad_(True)
    if outputs == 1:
        F.binary_cross_entropy_with_logits(model(leaf), y[:, None].float()).backward()
    else:
        F.cross_entropy(model(leaf), y).backward()
    assert torch.equal(found.inputs, (x + 0.1 * leaf.grad.sign()).clamp(0, 1))
    with_channel = y[:, None].float() if outputs == 1 else y[:, None]
    assert torch.equal(PerturbedSign(0.1).search(model, x, with_channel).inputs, found.inputs)


def test_a_single_logit_is_two_logits_of_which_one_is_zero():
    one = linear_model(classes=1)
    two = linear_model(classes=2)
    with torch.no_grad():
        two.weight.copy_(torch.cat([torch.zeros_like(one.weight), one.weight]))
        two.bias.copy_(torch.cat([torch.zeros_like(one.bias), one.bias]))
    x, y = inputs(), labels(classes=2)
    search = PerturbedSign(0.3, 5, closeness=0.3, noise=0.1, seed=0)
    single, double = search.search(one, x, y), search.search(two, x, y)
    assert torch.equal(single.inputs, double.inputs)
    assert torch.equal(single.labels, double.labels)


# --- the model is only looked at ------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("caller", [torch.enable_grad, torch.no_grad])
def test_only_inputs_get_gradients(requires_grad, caller):
    model = conv_model().train().requires_grad_(requires_grad)
    touched = []
    for parameter in model.parameters():
        if requires_grad:
            parameter.register_hook(lambda gradient: touched.append(gradient.shape))
    before = copy.deepcopy(model.state_dict())
    x = pictures().requires_grad_(True)
    with caller():
        found = PerturbedSign(0.1, 3, noise=0.1).search(model, x, labels(classes=3))
    assert touched == []
    assert all(p.grad is None and p.requires_grad is requires_grad for p in model.parameters())
    assert x.grad is None
    assert not any(value.requires_grad for value in (found.inputs, found.logits))
    assert all(module.training for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_search_looks_at_the_model_in_eval_mode():
    training, evaluating = conv_model().train(), conv_model().eval()
    search = PerturbedSign(0.1, 3)
    first, second = (search.search(m, pictures(), labels(classes=3)) for m in (training, evaluating))
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.logits, second.logits)


def test_inputs_are_not_written_to():
    x, y = inputs(), labels()
    kept = x.clone()
    PerturbedSign(0.1, 3).search(linear_model(), x, y).inputs.zero_()
    assert torch.equal(x, kept)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"radius": -0.1}, ValueError, r"^expected radius in \[0, inf\), but got -0.1$"),
        ({"radius": "wide"}, TypeError, "^expected radius to be a number, but got str: 'wide'$"),
        ({"steps": 0}, ValueError, "^expected steps to be at least 1, but got 0$"),
        ({"closeness": -1.0}, ValueError, r"^expected closeness in \[0, inf\), but got -1.0$"),
        ({"noise": float("nan")}, ValueError, r"^expected noise in \[0, inf\), but got nan$"),
        (
            {"noise_distribution": "gaussian"},
            ValueError,
            r"^expected noise_distribution to be one of \['normal', .*, 'cauchy'\], but got 'gaussian'$",
        ),
        ({"noise_distribution": "laplacian"}, ValueError, "did you mean 'laplace'"),
        ({"noise_scale": "relativ"}, ValueError, "did you mean 'relative'"),
        ({"update": "frank_wolfe"}, ValueError, "did you mean 'frank-wolfe'"),
        ({"step_size": -0.1}, ValueError, r"^expected step_size in \[0, inf\), but got -0.1$"),
        (
            {"step_size": 1.5, "update": "frank-wolfe"},
            ValueError,
            r"^expected step_size of a frank-wolfe update in \(0, 1\], but got 1.5$",
        ),
        (
            {"bounds": (1.0, 0.0)},
            ValueError,
            r"^expected bounds to be \(low, high\) with low < high, but got \(1.0, 0.0\)$",
        ),
        ({"bounds": 1.0}, TypeError, r"^expected bounds to be a tuple, but got float$"),
        ({"bounds": (0, 0.5, 1)}, ValueError, "^expected bounds to hold 2 values, but got 3$"),
        ({"bounds": (0, "one")}, TypeError, r"^expected bounds\[1\] to be a number, but got str: 'one'$"),
        ({"seed": 1.5}, TypeError, "^expected seed to be an int, but got float: 1.5$"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_made(options, error, text):
    with pytest.raises(error, match=text):
        PerturbedSign(**{"radius": 0.1, **options})


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"x": inputs() * 2 - 1},
            ValueError,
            r"^expected pixels of x in bounds \(0.0, 1.0\), but got values from -0.\d+ to 0.\d+; "
            r"normalisation belongs into the model \(models.with_normalization\)$",
        ),
        ({"x": torch.full((BATCH, PIXELS), float("nan"))}, ValueError, "but got values from nan to nan"),
        ({"x": (inputs() * 255).byte()}, TypeError, "^expected x to be floating point, but got torch.uint8$"),
        (
            {"x": inputs()[:0], "y": labels()[:0]},
            ValueError,
            "^expected x to hold at least one sample, but got an empty",
        ),
        (
            {"y": labels() + 2},
            ValueError,
            r"^expected y in \[0, 3\] for a model with 4 outputs, but got labels from 2 to 5$",
        ),
        ({"y": labels() - 1}, ValueError, r"^expected y in \[0, 3\] .* but got labels from -1 to"),
        ({"y": labels().float()}, TypeError, "^expected y to be integer class labels, but got torch.float32$"),
        (
            {"y": labels()[:3]},
            ValueError,
            r"^expected y to hold one label a sample of x, but got 3 for 7$",
        ),
        (
            {"y": labels()[:, None].repeat(1, 2)},
            ValueError,
            r"^expected y to hold one label a decision of logits \(7, 4\), but got shape \(7, 2\)$",
        ),
        (
            {"perturbations": torch.zeros(2, BATCH, PIXELS)},
            ValueError,
            r"^expected perturbations of shape \(3, 7, 12\), but got \(2, 7, 12\)$",
        ),
        (
            {"model": nn.Sequential(linear_model(), nn.Flatten(0))},
            ValueError,
            r"^expected logits of shape \(B, C, ...\), but got \(28,\)$",
        ),
        ({"model": linear_model(float("inf"))}, ValueError, "^expected logits to be finite, but got"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change, error, text):
    arguments = {"model": linear_model(), "x": inputs(), "y": labels(), **change}
    with pytest.raises(error, match=text):
        PerturbedSign(0.1, 3).search(**arguments)


def test_a_share_of_more_than_the_way_is_refused_in_the_step_that_asks_for_it():
    search = PerturbedSign(0.1, 3, step_size=linear(0.5, 2), update="frank-wolfe")
    with pytest.raises(ValueError, match=r"expected step_size of a frank-wolfe update in \[0, 1\], but got 1.25"):
        search.search(linear_model(), inputs(), labels())


def test_pixels_that_rounding_put_outside_are_taken():
    x = inputs(torch.float32)
    x[0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert PerturbedSign(0.1).search(linear_model(dtype=torch.float32), x, labels()).inputs.max() <= 1


def test_without_bounds_any_pixel_is_taken():
    found = PerturbedSign(0.1, bounds=None).search(linear_model(), 10 * inputs() - 5, labels())
    assert found.inputs.min() < -1


def test_settings_are_values():
    first, second = (PerturbedSign(0.1, 3, noise=linear(1, 0), bounds=bounds) for bounds in ((0, 1), [0.0, 1.0]))
    assert first == second
    assert hash(first) == hash(second)
    assert first != PerturbedSign(0.1, 3, noise=linear(1, 0.5))
    assert isinstance(first.noise, Schedule)
