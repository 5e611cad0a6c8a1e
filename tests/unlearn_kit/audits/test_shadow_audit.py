from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, models
from unlearn_kit.audits.margins import ensemble_margins
from unlearn_kit.audits.shadow import ShadowAudit, with_random_labels
from unlearn_kit.data.tensors import labels_of
from unlearn_kit.metrics.shadow import klom, u_lira

CALLS: list[int] = []


def build() -> nn.Module:
    return models.mlp(3, input_shape=(6,), hidden=(16,))


def data(seed: int, n: int) -> TensorDataset:
    y = torch.arange(n) % 3
    source = torch.Generator().manual_seed(seed)
    return TensorDataset((torch.randn(n, 6, generator=source) + 2 * nn.functional.one_hot(y, 6)) / 4, y)


def task() -> UnlearnTask:
    train = with_random_labels(data(0, 60), range(6), 3)
    return UnlearnTask.forget_samples(train, data(1, 20), range(6), num_classes=3)


def audit(**options: Any) -> ShadowAudit:
    given = {"models": 12, "epochs": 100, "batch_size": 60, "lr": 0.5, "weight_decay": 0.0, "mode": "vmap", **options}
    return ShadowAudit(build, task(), **given)


def keep(model: nn.Module, task: UnlearnTask, *, seed: int = 0, shift: float = 0.0) -> nn.Module:
    """A method that moves one bias."""
    CALLS.append(seed)
    revised = copy.deepcopy(model)
    with torch.no_grad():
        revised.head.bias[0] += shift
    return revised


def test_doing_nothing_is_detected_on_what_was_memorised(tmp_path: Path) -> None:
    CALLS.clear()
    one = audit(cache=tmp_path)
    nothing = one.audit(None)
    assert nothing.method == "do nothing"
    assert nothing.u_lira is not None
    assert nothing.u_lira.interval[0] > 0.7
    assert nothing.klom["forget"].median > nothing.klom["forget"].floor_p95
    assert nothing.klom["forget"].models == 6
    assert {name: found.examples for name, found in nothing.klom.items()} == {"forget": 6, "retain": 54, "held_out": 14}
    # Oracles against fresh oracles are not told apart.
    again = audit(seed=1)
    same = u_lira(again.oracles()["forget"], one.oracles()["forget"])
    assert same.interval[0] < 0.5 < same.interval[1] + 0.1
    # A method that does nothing, called once a model with a seed of its own, on models it cannot change.
    report = one.audit(keep)
    assert (len(CALLS), len(set(CALLS))) == (12, 12)
    assert report.u_lira.accuracy == pytest.approx(nothing.u_lira.accuracy)
    direct = klom(one.margins(None)[0]["retain"], one.oracles()["retain"])
    assert nothing.klom["retain"].median == direct.median


def test_a_cache_that_is_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("")
    with pytest.raises(ValueError, match=r"expected cache to be a folder, but got .*taken', where a file is"):
        audit(cache=path)


def test_one_more_method_costs_its_own_runs_only(tmp_path: Path) -> None:
    CALLS.clear()
    first = audit(cache=tmp_path, epochs=2)
    first.audit(keep)
    assert first.cache.misses == 4  # oracles and their margins, originals, the method
    second = audit(cache=tmp_path, epochs=2, chunk=5)
    second.audit(keep)
    assert (second.cache.hits, second.cache.misses, len(CALLS)) == (2, 0, 12)
    shifted, seconds = second.margins(keep, options={"shift": 3.0})
    assert (second.cache.misses, len(CALLS)) == (1, 24)
    assert seconds > 0
    assert second.margins(keep, options={"shift": 3.0})[1] == 0
    assert not torch.equal(shifted["forget"], second.margins(keep)[0]["forget"])
    other = audit(cache=tmp_path, epochs=3)
    other.oracles()
    assert (other.cache.hits, other.cache.misses) == (0, 2)


def test_models_differ_and_oracles_are_not_originals() -> None:
    found = audit(epochs=1)
    oracles, originals = found.oracles()["retain"], found.margins(None)[0]["retain"]
    everything = torch.cat([oracles, originals])
    assert len(torch.unique(everything, dim=0)) == 24
    torch.testing.assert_close(ensemble_margins(found.references(), found.splits["retain"]), oracles)
    assert len({found.unlearning_seed(place) for place in range(12)}) == 12


def test_random_labels_are_wrong_and_the_rest_is_kept() -> None:
    base = data(0, 30)
    found = with_random_labels(base, [1, 4, 29], 3, seed=2)
    changed = (labels_of(found) != base.tensors[1]).nonzero()[:, 0].tolist()
    assert changed == [1, 4, 29]
    assert torch.equal(found.inputs, base.tensors[0])
    assert labels_of(found).max() <= 2
    assert torch.equal(labels_of(found), labels_of(with_random_labels(base, [1, 4, 29], 3, seed=2)))


def test_an_algorithm_without_a_name_of_its_own_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"expected algorithm to be a function of a module, with its settings in options"
    ):
        audit(epochs=1).margins(lambda model, *_: model)


def test_too_few_models_are_refused() -> None:
    with pytest.raises(ValueError, match="expected models to be at least 4, but got 3"):
        audit(models=3)
