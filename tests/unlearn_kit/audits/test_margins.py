from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit.audits.ensembles import Ensemble
from unlearn_kit.audits.margins import TensorCache, ensemble_margins, margins


def test_margins_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 5, (3, 7, 4)), rng.integers(0, 4, 7)
    expected = [[row[y[i]] - logsumexp(np.delete(row, y[i])) for i, row in enumerate(one)] for one in z]
    found = margins(torch.from_numpy(z).float().double(), torch.from_numpy(y))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_saturated_margins_stay_apart() -> None:
    found = margins(torch.tensor([[[1000.0, 0.0], [0.0, 1000.0]]]), torch.tensor([0, 0]))
    assert found.tolist() == [[1000, -1000]]
    assert margins(torch.tensor([[[3.0], [3.0]]]), torch.tensor([1, 0])).tolist() == [[3, -3]]


def test_margins_of_an_ensemble() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models, x = [nn.Linear(5, 3) for _ in range(2)], torch.randn(6, 5)
    data = TensorDataset(x, torch.arange(6) % 3)
    found = ensemble_margins(Ensemble.of(models), data, batch_size=4)
    p = torch.stack([model(x).detach().double().softmax(1)[range(6), data.tensors[1]] for model in models])
    torch.testing.assert_close(found, (p / (1 - p)).log(), rtol=1e-4, atol=1e-5)
    assert ensemble_margins(Ensemble.of(models), []).shape == (2, 0)


def test_bad_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected logits of shape \(models, samples, C\), but got \(2, 3\)"):
        margins(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="expected logits to be finite"):
        margins(torch.full((1, 2, 3), torch.nan), torch.zeros(2))
    with pytest.raises(ValueError, match=r"expected targets to be class indices in 0..2, but got 0..3"):
        margins(torch.zeros(1, 2, 3), torch.tensor([0, 3]))


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {"m": torch.arange(3.0, dtype=torch.float64)}


def test_a_second_look_finds_what_the_first_computed(tmp_path: Path) -> None:
    compute = Counted()
    for _ in range(2):
        assert TensorCache(tmp_path / "new").get("key", compute)["m"].tolist() == [0, 1, 2]
    assert compute.calls == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["key.safetensors"]
    cache = TensorCache()
    cache.get("key", compute)
    cache.get("key", compute)
    assert (compute.calls, cache.hits, cache.misses) == (2, 1, 1)
    cache.get("other", compute)
    assert compute.calls == 3


@pytest.mark.parametrize("damage", ["short", "other"])
def test_a_damaged_file_is_reported_computed_again_and_replaced(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    compute, cache = Counted(), TensorCache(tmp_path)
    cache.get("key", compute)
    path = cache.path("key")
    assert path is not None
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        cache.get("else", compute)
        path.write_bytes((tmp_path / "else.safetensors").read_bytes())
    calls = compute.calls
    with caplog.at_level(logging.WARNING, "unlearn_kit"):
        assert cache.get("key", compute)["m"].tolist() == [0, 1, 2]
    assert "computed again" in caplog.text
    assert compute.calls == calls + 1
    assert TensorCache(tmp_path).get("key", compute)["m"].tolist() == [0, 1, 2]
    assert compute.calls == calls + 1


def test_a_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> dict[str, Tensor]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        TensorCache(tmp_path).get("key", fail)
    assert list(tmp_path.iterdir()) == []
