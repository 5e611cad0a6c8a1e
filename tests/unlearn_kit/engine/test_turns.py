"""Phases that drop out of an alternation, and batch norm that is trained where its weights are."""

import pytest
import torch
from torch import nn

from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages
from unlearn_kit.engine import Alternate, Phase, fit
from unlearn_kit.engine.phases import plan, sizes_for

DATA = TensorImages(torch.rand(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)


def phase(name, **options):
    return Phase(L.cross_entropy(on="forget"), {"forget": DATA}, steps=2, batch_size=4, name=name, **options)


def test_a_phase_takes_part_in_the_first_rounds_and_its_schedules_span_those():
    legs = plan(Alternate([phase("a"), phase("b")], 3, turns={"a": 2}))
    assert [(leg.phase.name, leg.start, leg.stop, leg.total) for leg in legs] == [
        ("a", 0, 2, 4),
        ("b", 0, 2, 6),
        ("a", 2, 4, 4),
        ("b", 2, 4, 6),
        ("b", 4, 6, 6),
    ]


@pytest.mark.parametrize(("turns", "names"), [({"a": 0}, ["b", "b"]), ({"a": 9}, ["a", "b", "a", "b"])])
def test_no_turns_and_more_turns_than_rounds(turns, names):
    assert [leg.phase.name for leg in plan(Alternate([phase("a"), phase("b")], 2, turns=turns))] == names


def test_turns_are_checked():
    with pytest.raises(ValueError, match=r"expected every name in turns to be one of \['a'\], but got 'b'"):
        Alternate([phase("a")], 2, turns={"b": 1})
    with pytest.raises(ValueError, match=r"expected turns\['a'\] to be at least 0, but got -1"):
        Alternate([phase("a")], 2, turns={"a": -1})


def test_trained_batch_norm_learns_only_where_its_weights_are_trained():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    found = fit(model, phase("a", trainable=["3.weight", "4.weight"], batch_norm="trained")).model
    assert (int(found[1].num_batches_tracked), int(found[3].num_batches_tracked)) == (0, 2)
    assert not torch.equal(found[3].running_mean, model[3].running_mean)
    assert torch.equal(found[1].running_mean, model[1].running_mean)
    assert model.training
    assert all(module.training for module in found.modules())


def test_sizes_for_streams_that_are_not_read_are_left_out():
    assert sizes_for({"forget": 3, "retain": 5}, L.cross_entropy(on="forget")) == {"forget": 3}
    assert sizes_for(7, L.cross_entropy(on="forget")) == 7
