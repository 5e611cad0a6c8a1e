from __future__ import annotations

import math
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, data, engine, models
from unlearn_kit.audits import linear_probe


class Spy(nn.Module):
    """A body that passes its input on and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return x


def headed(body: nn.Module, head: nn.Module) -> nn.Module:
    return models.declare_head(nn.Sequential(OrderedDict(body=body, head=head)), "head")


def blobs(n: int, spread: float, seed: int = 0) -> TensorDataset:
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return TensorDataset(nn.functional.one_hot(y, 3) + spread * torch.randn(n, 3, generator=rng), y)


def blob_task(spread: float, n: int = 120) -> UnlearnTask:
    return UnlearnTask.forget_class(blobs(n, spread), blobs(60, spread, seed=1), 2)


def test_the_probe_is_a_logistic_regression_judged_on_other_images() -> None:
    spy = Spy()
    made = blob_task(0.6)
    report = linear_probe(headed(spy, nn.Linear(3, 3)), made, seed=5)
    fit_f, fit_r, judge_f, judge_r = (x.double().numpy() for x in spy.seen)
    assert (len(fit_f), len(fit_r), len(judge_f), len(judge_r)) == (20, 40, 20, 40)
    rows = {tuple(row) for part in spy.seen for row in part.tolist()}
    assert len(rows) == 120  # nobody is in two of the four

    labels = {tuple(x.tolist()): int(y) for x, y in blobs(120, 0.6)}

    def truth(part: np.ndarray) -> np.ndarray:
        return np.array([labels[tuple(row)] for row in part])

    fit = np.concatenate([fit_f, fit_r])
    centre, scale = fit.mean(axis=0), fit.std(axis=0)
    own = LogisticRegression(tol=1e-8, max_iter=5000).fit((fit - centre) / scale, truth(fit))
    for found, part in ((report.forget, judge_f), (report.retain, judge_r)):
        assert found == pytest.approx((own.predict((part - centre) / scale) == truth(part)).mean())
    assert 0.5 < report.forget < 1
    assert report.fitted_on == 60
    assert report == linear_probe(headed(Spy(), nn.Linear(3, 3)), made, seed=5, batch_size=7)
    assert report != linear_probe(headed(Spy(), nn.Linear(3, 3)), made, seed=6)


def test_features_that_hold_the_class_and_features_that_do_not() -> None:
    made = blob_task(0.1, 300)

    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[:, :2], 0 * x[:, 2:]], dim=1)

    kept = linear_probe(headed(nn.Identity(), nn.Linear(3, 3)), made)
    assert (kept.forget, kept.retain) == (1.0, 1.0)
    noise = linear_probe(headed(nn.Identity(), nn.Linear(3, 3)), blob_task(50.0, 300))
    assert (noise.forget + 2 * noise.retain) / 3 < 0.45  # of three classes with nothing to tell them apart
    # Classes 0 and 1 are still there to see; the forgotten one is what is neither.
    assert linear_probe(headed(Blind(), nn.Linear(3, 3)), made).retain > 0.9


def test_the_reference_beside_itself_is_the_ideal() -> None:
    digits = data.load("digits")
    made = UnlearnTask.forget_class(digits.train, digits.test, 4)
    reference = engine.train(models.build("mlp", 10, seed=0), made.retain, epochs=2).model
    report = linear_probe(reference, made, reference, limit=200)
    assert report.reference == linear_probe(reference, made, limit=200)
    assert report.forget == report.reference.forget
    assert report.fitted_on == math.ceil(len(made.forget) / 2) + 100
    # Good features of nine digits separate the tenth, which the network never saw: high is no failure.
    assert report.forget > 0.8
    other = linear_probe(models.build("mlp", 10, seed=1), made, report.reference, limit=200)
    assert other.reference is report.reference


def test_huge_features_and_a_single_class_and_too_few_images() -> None:
    x, y = blobs(60, 0.1).tensors
    huge = UnlearnTask.forget_class(TensorDataset(1e15 * x, y), blobs(9, 1), 2)
    assert linear_probe(headed(nn.Identity(), nn.Linear(3, 3)), huge).forget == 1
    ones = TensorDataset(torch.zeros(4, 3), torch.ones(4).long())
    same = UnlearnTask(ones, ones, ones, ones, 3)
    model = headed(nn.Identity(), nn.Linear(3, 3))
    assert linear_probe(model, same).forget == 1
    single = TensorDataset(torch.zeros(1, 3), torch.ones(1).long())
    none = TensorDataset(torch.zeros(0, 3), torch.zeros(0).long())
    assert linear_probe(model, UnlearnTask(single, ones, ones, ones, 3)) is None
    assert linear_probe(model, UnlearnTask(ones, none, ones, ones, 3)) is None
    assert linear_probe(model, UnlearnTask(ones, single, ones, ones, 3)).retain is None
    assert linear_probe(model, SimpleNamespace(**{**vars(same), "forget": none})) is None


def squares(n: int, classes: int = 2, seed: int = 0) -> TensorDataset:
    """Images whose brightness is their mask; class 2 in every third image only."""
    rng = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, 6, 6, generator=rng) > 0.6).long()
    if classes == 3:
        y[::3, :3] = 2
    x = y.unsqueeze(1) / 2 + 0.02 * torch.randn(n, 1, 6, 6, generator=rng)
    return TensorDataset(torch.cat([x, x.square()], dim=1), y if classes == 3 else y.float().unsqueeze(1))


def test_masks_are_probed_pixel_by_pixel_and_judged_image_by_image() -> None:
    made = UnlearnTask.forget_random(squares(24), squares(4, seed=1), 0.25)
    model = headed(nn.Identity(), nn.Conv2d(2, 1, 1))
    report = linear_probe(model, made, model)
    assert report.forget == report.retain == report.reference.forget == 1
    assert report.fitted_on == 12

    noise = SimpleNamespace(**vars(made))
    x, y = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0)), squares(6).tensors[1]
    noise.forget = noise.retain = TensorDataset(x, y)
    assert linear_probe(model, noise).forget < 0.3


def test_the_score_of_masks_is_scikit_learns_jaccard_of_each_image() -> None:
    spy = Spy()
    x, y = squares(20).tensors
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    made = UnlearnTask.forget_samples(TensorDataset(x, y), TensorDataset(x, y), range(8))
    report = linear_probe(headed(spy, nn.Conv2d(2, 1, 1)), made, pixels=2000)
    fit = torch.cat(spy.seen[:2]).double()
    mask_of = {tuple(image.flatten().tolist()): mask[0].numpy().astype(int) for image, mask in zip(x, y, strict=True)}

    def rows(images: Tensor) -> np.ndarray:
        return images.movedim(1, -1).reshape(-1, 2).double().numpy()

    truth = np.concatenate([mask_of[tuple(image.flatten().tolist())].ravel() for image in torch.cat(spy.seen[:2])])
    centre, scale = rows(fit).mean(axis=0), rows(fit).std(axis=0)
    own = LogisticRegression(C=100).fit((rows(fit) - centre) / scale, truth)
    expected = np.mean(
        [
            jaccard_score(
                mask_of[tuple(image.flatten().tolist())].ravel(),
                own.predict((rows(image[None]) - centre) / scale),
                zero_division=1,
            )
            for image in spy.seen[2]
        ]
    )
    assert report.forget == pytest.approx(expected, abs=0.03)  # the pixels that fit it are drawn


def test_a_forgotten_mask_class_is_probed_where_no_image_comes_with_two_masks() -> None:
    made = UnlearnTask.forget_mask_class(squares(18, 3), squares(6, 3, seed=1), 2)
    spy = Spy()
    report = linear_probe(headed(spy, nn.Conv2d(2, 3, 1)), made)
    assert report.forget == pytest.approx(1, abs=0.05)  # the IoU of class 2 alone
    assert report.fitted_on == 3 + 6
    images = {tuple(x.flatten().tolist()) for part in spy.seen for x in part}
    assert len(images) == 18
    holding = TensorDataset(*(tensor[::3] for tensor in squares(18, 3).tensors))
    everywhere = UnlearnTask.forget_mask_class(holding, squares(3, 3), 2)
    assert linear_probe(headed(Spy(), nn.Conv2d(2, 3, 1)), everywhere).retain is None


def test_a_head_that_enlarges_its_input() -> None:
    lesions = data.load("synthetic-lesions", train_size=8, test_size=2, size=16)
    made = UnlearnTask.forget_samples(lesions.train, lesions.test, [0, 1, 2, 3])
    unet = models.build("unet", 2, 3, seed=0, widths=(4, 8), decoder_widths=(8, 4))
    plain = linear_probe(unet, made, pixels=16)
    assert 0 <= plain.forget <= 1
    assert 0 <= plain.retain <= 1
    body, head = nn.AvgPool2d(2), nn.Sequential(nn.Conv2d(3, 1, 1), nn.Upsample(scale_factor=2))
    assert 0 <= linear_probe(headed(body, head), made, pixels=16).forget <= 1


def test_bad_options_and_a_missing_head_are_refused() -> None:
    model = headed(nn.Identity(), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="expected limit to be at least 2, but got 1"):
        linear_probe(model, blob_task(1.0), limit=1)
    with pytest.raises(ValueError, match="expected pixels to be at least 1, but got 0"):
        linear_probe(model, blob_task(1.0), pixels=0)
    with pytest.raises(ValueError, match="Linear does not declare which submodule is its head"):
        linear_probe(nn.Linear(3, 3), blob_task(1.0))
