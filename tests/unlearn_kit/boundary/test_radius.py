"""The smallest radius at which a label changes: against a linear model, where it has a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unlearn_kit.boundary import PerturbedSign


class Line(nn.Module):
    """Two classes with logits 0 and ``w x + b``: the boundary is ``|w x + b| / |w|_1`` away in the box norm."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 0.25]))

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.w - 0.05
        return torch.stack([torch.zeros_like(z), z], 1)


def points() -> tuple[Tensor, Tensor]:
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, Line()(x).argmax(1)


@pytest.mark.parametrize(
    "search",
    [
        PerturbedSign(2.0, bounds=None),
        PerturbedSign(2.0, steps=3, bounds=None),
        PerturbedSign(2.0, steps=4, bounds=None, stop_when_flipped=True),
        PerturbedSign(2.0, step_size=2.0, bounds=None),
        PerturbedSign(2.0, steps=2, update="frank-wolfe", bounds=None),
    ],
    ids=["one step", "three steps", "stops", "step size", "frank-wolfe"],
)
def test_of_a_linear_model_it_is_the_distance_in_the_box_norm(search: PerturbedSign) -> None:
    x, y = points()
    model = Line()
    found = search.radii(model, x, y, tolerance=1e-4)
    exact = (x @ model.w - 0.05).abs() / model.w.abs().sum()
    assert found.flipped.all()
    assert ((found.radii - exact).detach() <= 1e-4 + 1e-6).all()
    assert ((found.radii - exact).detach() >= -1e-6).all()
    assert torch.equal(found.labels, 1 - y)


def test_bounds_and_the_largest_radius_leave_labels_as_they_are() -> None:
    x, y = points()
    exact = ((x @ Line().w - 0.05).abs() / 1.75).detach()
    found = PerturbedSign(0.1, bounds=None).radii(Line(), x, y, tolerance=1e-3)
    assert torch.equal(found.flipped, exact < 0.1)
    assert (found.radii[~found.flipped] == torch.tensor(0.1)).all()
    assert torch.equal(found.labels[~found.flipped], y[~found.flipped])
    inside = PerturbedSign(2.0, bounds=(0.0, 1.0)).radii(Line(), x, y)
    assert (inside.radii >= exact - 1e-6).all()
    assert (inside.radii > exact + 0.01).any()


def test_a_sample_that_is_wrong_by_itself_is_at_radius_zero() -> None:
    x, y = points()
    found = PerturbedSign(1.0, bounds=None).radii(Line(), x, 1 - y)
    assert (found.radii == 0).all()
    assert torch.equal(found.labels, y)


def test_noise_is_one_draw_for_all_radii_and_the_same_every_time() -> None:
    x, y = points()
    search = PerturbedSign(2.0, steps=2, noise=0.5, noise_scale="relative", bounds=None)
    first, second = search.radii(Line(), x, y), search.radii(Line(), x, y)
    assert torch.equal(first.radii, second.radii)
    at = torch.minimum(first.radii + 1e-6, torch.tensor(2.0))
    z = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(0))
    labels = search.search(Line(), x, y, perturbations=z, radii=at).labels
    assert torch.equal(labels != y, first.flipped)


@pytest.mark.parametrize(
    ("search", "options", "text"),
    [
        (PerturbedSign(0.0), {}, "expected radius of the search"),
        (PerturbedSign(0.1), {"tolerance": 0.0}, "expected tolerance"),
    ],
)
def test_what_cannot_be_bisected_is_refused(search: PerturbedSign, options: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        search.radii(Line(), *points(), **options)
