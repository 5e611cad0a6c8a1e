from __future__ import annotations

import torch

from unlearn_kit.deployed.page import _name


def test_classes_are_named_one_or_several_of_a_sample() -> None:
    names = ("effusion", "nodule", "fibrosis")
    assert _name(torch.tensor(1), names) == "nodule"
    assert _name(torch.tensor(1), None) == "1"
    assert _name(torch.tensor([1, 0, 1]), names) == "effusion, fibrosis"
    assert _name(torch.tensor([0.0, 0.0, 0.0]), names) == "none"
