"""A figure beside that of references: by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearn_kit.metrics import beside_references


def numbered(value: float) -> nn.Module:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(value)
    return model


def size(model: nn.Module) -> float | None:
    value = next(model.parameters()).item()
    return None if value < 0 else value


def apart(model: nn.Module, reference: nn.Module) -> float:
    return abs(next(model.parameters()).item() - next(reference.parameters()).item())


@pytest.mark.parametrize(
    ("value", "references", "gap", "resolution", "within"),
    [
        (3.0, (1.0, 2.0), 2.0, 1.0, False),
        (0.5, (1.0, 2.0), 0.5, 1.0, True),
        (0.0, (1.0, 2.0), 1.0, 1.0, True),  # as far as the second is
        (3.0, (1.0, 2.0, 4.0), 2.0, 3.0, True),
        (3.0, (1.0,), 2.0, None, None),
        (3.0, (1.0, -1.0), 2.0, None, None),  # of the second there is no figure
        (-1.0, (1.0, 2.0), None, 1.0, None),
    ],
)
def test_within_is_no_farther_than_another_reference(
    value: float, references: tuple[float, ...], gap: float | None, resolution: float | None, within: bool | None
) -> None:
    found = beside_references(size, numbered(value), [numbered(one) for one in references])
    assert (found.gap, found.resolution, found.within) == (gap, resolution, within)
    assert len(found.references) == len(references)


def test_a_distance_is_one_to_the_first_reference() -> None:
    references = [numbered(1.0), numbered(2.0)]
    found = beside_references(lambda model: apart(model, references[0]), numbered(3.0), references)
    assert (found.references, found.gap, found.resolution) == ((0.0, 1.0), 2.0, 1.0)
    assert found.words == "beyond the references' range: 2 from the first, which another is 1 from"


def test_words_say_what_is_not_known() -> None:
    one = beside_references(size, numbered(3.0), [numbered(1.0)])
    assert one.words == "2 from the reference; there is no second one to say how much that is"
    assert beside_references(size, numbered(-1.0), [numbered(1.0)]).words == "n/a"
    with pytest.raises(ValueError, match="expected references to hold at least one model, but got none"):
        beside_references(size, numbered(1.0), [])
