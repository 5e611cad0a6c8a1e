"""SISA: after a request the system is, bit for bit, the one that never saw the samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax
from torch import Tensor, nn

from unlearn_kit import adapters, models, save_model
from unlearn_kit.composition import Sisa, sisa_forget, sisa_load, sisa_save, sisa_train
from unlearn_kit.composition.ensemble import ShardEnsemble
from unlearn_kit.data import TensorImages
from unlearn_kit.errors import CheckpointError
from unlearn_kit.metrics import accuracy


def images(count: int = 48, seed: int = 0) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.4 * torch.rand(count, 1, 6, 6, generator=source)
    for label in range(3):
        x[y == label, :, 2 * label : 2 * label + 2] += 0.5
    return TensorImages(x, y)


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def frozen_with_adapter() -> nn.Module:
    torch.manual_seed(7)  # the same base every time; the draw is fenced off
    base = models.small_cnn(num_classes=3, channels=1, width=4)
    return adapters.attach(base, "all", rank=2)


KINDS = {"mean": build, "vote": build, "merge": frozen_with_adapter}
QUICK = {"shards": 3, "slices": 2, "epochs": 1, "batch_size": 4, "seed": 5}


def trained(aggregate: str, **options: object) -> Sisa:
    return sisa_train(KINDS[aggregate], images(), aggregate=aggregate, **{**QUICK, **options})


def bits(system: Sisa) -> list[Tensor]:
    states = [value for own in system.states for state in own for value in state.values()]
    return [*states, *system.model.state_dict().values(), system.model(images(9, 1).inputs)]


def same(one: Sisa, other: Sisa) -> bool:
    return all(torch.equal(a, b) for a, b in zip(bits(one), bits(other), strict=True))


@pytest.mark.parametrize("aggregate", list(KINDS))
@pytest.mark.parametrize("drop", [False, True])
def test_what_is_forgotten_has_left_no_bit(aggregate, drop):
    system = trained(aggregate)
    before = bits(system)
    one = int(system.slices[1][1][0])
    after = sisa_forget(system, [one], drop=drop)
    gone = torch.cat(system.slices[1]).tolist() if drop else [one]
    assert same(after, trained(aggregate, without=gone))
    assert not same(after, system)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(system), strict=True))
    assert sorted(i for own in after.slices for part in own for i in part.tolist()) == sorted({*range(48)} - {*gone})


def test_requests_one_after_another_are_one_request():
    system = trained("mean")
    asked = [int(system.slices[0][0][0]), int(system.slices[2][1][3])]
    one_by_one = sisa_forget(sisa_forget(system, asked[:1]), torch.tensor(asked[1:]))
    assert same(one_by_one, sisa_forget(system, asked))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_only_the_touched_shard_is_trained_again_from_its_last_clean_slice(stage):
    system = trained("mean", shards=2, slices=3)
    after = sisa_forget(system, system.slices[1][stage][:1])
    assert after.retrained == {1: 3 - stage}
    for shard, own in enumerate(after.states):
        for k, state in enumerate(own):
            kept = all(torch.equal(value, system.states[shard][k][name]) for name, value in state.items())
            assert kept == (shard == 0 or k < stage)
    # Slices of 8: a shard reads 8 + 16 + 24 samples a pass; one sample less in each stage that is trained again.
    read = sum([7, 15, 23][stage:])
    assert after.share == pytest.approx(read / (48 + [45, 46, 47][stage]))
    assert system.share == 1
    assert system.retrained == {0: 3, 1: 3}


def test_shards_and_slices_are_a_partition_that_no_content_decides():
    system = trained("mean")
    parts = [part for own in system.slices for part in own]
    assert sorted(torch.cat(parts).tolist()) == list(range(48))
    assert {len(part) for part in parts} == {8}
    other = sisa_train(build, TensorImages(torch.rand(48, 1, 6, 6), torch.arange(48) % 3), **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(parts, (p for own in other.slices for p in own), strict=True))


def test_it_learns_and_a_forgotten_class_is_unknown():
    system = sisa_train(build, images(90), shards=3, epochs=15, batch_size=8)
    assert accuracy(system.model, images(30, 1)) > 0.9
    after = sisa_forget(system, [i for i in range(90) if i % 3 == 1])
    assert accuracy(after.model, TensorImages(images(30, 1).inputs[1::3], torch.full((10,), 1))) == 0
    assert after.share == 1


@pytest.mark.parametrize(("channels", "apart"), [(4, False), (1, False), (4, True)])
@pytest.mark.parametrize("by", ["mean", "vote"])
def test_the_members_are_one_by_their_probabilities_or_votes(by, channels, apart):
    torch.manual_seed(0)
    members = [nn.Linear(5, channels) for _ in range(3)]
    x = 3 * torch.randn(40, 5)
    found = ShardEnsemble(members, by, apart=apart)(x).detach().double().numpy()
    each = np.stack([member(x).detach().double().numpy() for member in members])
    single = apart or channels == 1
    mean = (expit(each) if single else softmax(each, axis=2)).mean(0)
    if by == "mean":
        np.testing.assert_allclose(found, logit(mean) if single else np.log(mean), rtol=1e-4, atol=1e-5)
    elif single:
        np.testing.assert_array_equal(found > 0, (each > 0).sum(0) >= 2)
    else:
        counts = np.stack([np.bincount(votes, minlength=channels) for votes in each.argmax(2).T])
        best = counts.max(1, keepdims=True)
        wanted = np.where(counts == best, mean, -1).argmax(1)  # the mean settles a tie
        np.testing.assert_array_equal(found.argmax(1), wanted)
        assert ((counts == best).sum(1) > 1).any()


def test_merged_adapters_are_the_mean_of_their_updates():
    system = trained("merge")
    assert adapters.adapter_names(system.model) == ["shard0", "shard1", "shard2"]
    members = [system.recipe.member(shard, states[-1]) for shard, states in enumerate(system.states)]
    base = adapters.base_state(system.model)
    weights = [dict(adapters.merge(model).named_parameters()) for model in (*members, system.model)]
    for name, merged in weights.pop().items():
        torch.testing.assert_close(merged - base[name], sum(own[name] - base[name] for own in weights) / 3)
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "expected indices to hold at least one position, but got none"),
        ([48], ValueError, r"expected indices to be positions that a shard holds, but got \[48\]"),
        ([-1], ValueError, r"expected indices to be positions that a shard holds, but got \[-1\]"),
        (torch.ones(3), TypeError, "expected indices to be positions, a list of ints, but got torch.float32"),
        (torch.ones(48, dtype=torch.bool), TypeError, "expected indices to be positions, a list of ints"),
        (range(48), ValueError, "expected indices to leave data in a shard"),
    ],
)
def test_requests_that_make_no_sense_are_refused(indices, error, message):
    with pytest.raises(error, match=message):
        sisa_forget(trained("mean", epochs=1), indices)


def test_what_is_gone_cannot_be_forgotten_again():
    with pytest.raises(ValueError, match=r"expected indices to be positions that a shard holds, but got \[3\]"):
        sisa_forget(sisa_forget(trained("mean", epochs=1), [3]), [3])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shards": 20, "slices": 3}, ValueError, r"expected shards \* slices to be at most the 48 samples"),
        ({"aggregate": "merge"}, TypeError, "expected model to have adapters"),
        ({"build": build()}, TypeError, "expected build to be a function"),
        ({"aggregate": "best"}, ValueError, "expected aggregate to be one of"),
        ({"without": [50]}, ValueError, r"expected without to be positions that a shard holds, but got \[50\]"),
    ],
)
def test_systems_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        sisa_train(**{"build": build, "dataset": images(), **options})


@pytest.mark.parametrize("aggregate", ["vote", "merge"])
def test_a_system_comes_back_from_its_file_and_forgets_as_it_would_have(aggregate, tmp_path):
    system = sisa_forget(trained(aggregate), [7])
    path = sisa_save(system, tmp_path / "system.safetensors")
    blank = images()
    blank.inputs[7] = torch.nan  # not trained on again
    loaded = sisa_load(path, KINDS[aggregate], blank, batch_size=4)
    assert same(loaded, system)
    assert (loaded.retrained, loaded.share) == (system.retrained, system.share)
    assert same(sisa_forget(loaded, [3]), sisa_forget(system, [3]))


def test_a_file_is_held_against_network_data_and_options(tmp_path):
    path = sisa_save(trained("mean"), tmp_path / "system.safetensors")
    with pytest.raises(
        ValueError, match=r"expected options to be those of the training, \{'batch_size': '4'\}, but got"
    ):
        sisa_load(path, build, images())
    with pytest.raises(ValueError, match="expected samples to be those of the training, 48, but got 45"):
        sisa_load(path, build, images(45), batch_size=4)
    with pytest.raises(CheckpointError, match="to fit the network that build makes, but"):
        sisa_load(path, lambda: models.small_cnn(num_classes=3, channels=1, width=4), images(), batch_size=4)
    other = save_model(build(), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="to hold a system that sisa_save wrote, but it holds none"):
        sisa_load(other, build, images())
