"""Training through Accelerate: the same bits in single precision, float32 weights in mixed, equal processes."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import nn

import algorithms
from unlearn_kit import DivergenceError
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import Callback, Phase, Run, facts_of, fit
from unlearn_kit.models import build


def images(count: int, seed: int) -> TensorImages:
    own = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=own)
    return TensorImages(0.2 * torch.rand(count, 1, 8, 8, generator=own) + y.reshape(-1, 1, 1, 1) / 4, y)


FORGET, RETAIN = images(10, 1), images(22, 2)


def dense() -> nn.Module:
    return build("mlp", 3, seed=0, hidden=(5,))


def dropping() -> nn.Module:
    model = build("small-cnn", 3, seed=0, width=2)
    model[1].append(nn.Dropout(0.3))  # type: ignore[index]
    return model


def phase(**options: Any) -> Phase:
    """Batches of 4 and of 8, the last of them 2 and 6."""
    objective = options.pop("objective", L.cross_entropy(on="retain") - 0.1 * L.cross_entropy(on="forget"))
    streams = {"retain": RETAIN, "forget": FORGET}
    sizes = {"retain": 8, "forget": 4}
    return Phase(objective, **{"streams": streams, "batch_size": sizes, "epochs": 3, "lr": 0.1, "clip": 1.0, **options})


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Accelerate keeps its settings in the process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_single_precision_through_an_accelerator_gives_the_same_bits(optimizer: str, tmp_path: Path) -> None:
    program = phase(optimizer=optimizer, batch_norm="update")
    plain = fit(dropping(), program, seed=1)
    path = tmp_path / "run.safetensors"
    for checkpoint in (None, path, path):  # Saved, then read back.
        through = fit(dropping(), program, seed=1, accelerator=Accelerator(cpu=True), checkpoint=checkpoint)
        assert through.history == plain.history
        for name, value in plain.model.state_dict().items():
            assert torch.equal(value, through.model.state_dict()[name])


def test_mixed_precision_keeps_float32_weights_and_learns() -> None:
    seen: set[torch.dtype] = set()

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.add(x.dtype)
            return x

    model = build("small-cnn", 3, seed=0, width=4)
    model[1].append(Watch())  # type: ignore[index]
    program = Phase(
        L.cross_entropy(on="retain"),
        {"retain": RETAIN},
        epochs=30,
        batch_size=11,
        optimizer="adam",
        lr=0.01,
        batch_norm="update",
    )
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    result = fit(model, program, accelerator=accelerator, log_every=1)
    assert torch.bfloat16 in seen
    assert {value.dtype for value in result.model.state_dict().values()} == {torch.float32, torch.int64}
    assert result.history[-1]["total"] < 0.6 * result.history[0]["total"]
    again = fit(model, program, accelerator=accelerator, log_every=1)
    assert again.history == result.history


def test_double_precision_stays_double() -> None:
    doubled = TensorImages(RETAIN.inputs.double(), RETAIN.targets)
    program = Phase(L.cross_entropy(on="retain"), {"retain": doubled}, epochs=1, batch_size=8)
    plain = fit(dense().double(), program).model
    through = fit(dense().double(), program, accelerator=Accelerator(cpu=True)).model
    for name, value in plain.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(value, through.state_dict()[name])


def test_an_accelerator_that_accumulates_gradients_is_refused() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match=r"expected accelerator to have gradient_accumulation_steps=1, .* but got 2"):
        fit(dense(), phase(), accelerator=accelerator)


# Every algorithm that trains, as the table of promises runs it: with what has no numbers of its own in each process.
# Batch norm that updates and dropout do: each process draws its own, and normalises by its share of a batch.
TRAINING = [name for name in algorithms.__all__ if facts_of(getattr(algorithms, name)).training]
PLAIN: dict[str, dict[str, Any]] = {"erase_to_retain": {"dropout": 0.0, "where": ["0", "3"]}}


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Conv2d(1, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(24, 3)).eval()


def revised(accelerator: Accelerator | None) -> dict[str, torch.Tensor]:
    """Return the weights that each of them makes; of 15 samples to forget, batches of 6 and 3."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "algorithms"))
    import test_promises as promises

    made = {}
    for name in TRAINING:
        options = promises.quick(name, convolutions()) | {"batch_size": 6} | PLAIN.get(name, {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = getattr(algorithms, name)(convolutions(), promises.of_class(), accelerator=accelerator, **options)
        made |= {f"{name} {key}": value.contiguous() for key, value in result.model.state_dict().items()}
    return made


def noisy_tables(accelerator: Accelerator | None) -> dict[str, torch.Tensor]:
    """Return what training toward cached and fresh noisy targets makes; one stream is drawn by weights."""
    search = PerturbedSign(radius=0.2, steps=2, noise=1.0)
    boundary = L.Boundary(dense(), search, soft=True)
    objective = L.Objective(
        (
            L.cross_entropy(on="forget", to=L.Cached(boundary, refresh="epoch")),
            L.kl(on="retain", to=L.Cached(boundary)),
            L.cross_entropy(on="retain", to=boundary, name="fresh"),
        )
    )
    sampling = {"retain": torch.arange(1.0, 1 + len(RETAIN))}
    return fit(dense(), phase(objective=objective, sampling=sampling), accelerator=accelerator).model.state_dict()


class Bad(Callback):
    """Spoils the data of the second process alone."""

    def on_step(self, run: Run) -> None:
        if int(os.environ["RANK"]) == 1 and run.done == 2:
            RETAIN.inputs.fill_(torch.nan)


def _process(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    path = Path(folder) / "run.safetensors"
    result = fit(dense(), phase(), accelerator=accelerator, log_every=1, checkpoint=path, checkpoint_every=2)
    totals = torch.tensor([record["total"] for record in result.history])
    save_file({**result.model.state_dict(), "totals": totals}, Path(folder) / f"{rank}.safetensors")
    updated = fit(build("small-cnn", 3, seed=0, width=2), phase(batch_norm="update"), accelerator=accelerator)
    save_file(updated.model.state_dict(), Path(folder) / f"norm{rank}.safetensors")
    save_file(noisy_tables(accelerator), Path(folder) / f"tables{rank}.safetensors")
    save_file(revised(accelerator), Path(folder) / f"revised{rank}.safetensors")
    with pytest.raises(DivergenceError):
        fit(dense(), phase(), accelerator=accelerator, callbacks=[Bad()])
    torch.distributed.destroy_process_group()
    os._exit(0)  # at an ordinary end a thread of gloo's, still running, sometimes aborts a process that was right


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (2, port, str(tmp_path)), nprocs=2)
    single = fit(dense(), phase(), log_every=1)
    expected = {**single.model.state_dict(), "totals": torch.tensor([record["total"] for record in single.history])}
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    norms = [load_file(tmp_path / f"norm{rank}.safetensors") for rank in range(2)]
    torch.testing.assert_close(norms[0], norms[1], rtol=0, atol=0)
    # What two processes saved, one reads back as finished.
    resumed = fit(dense(), phase(), log_every=1, checkpoint=tmp_path / "run.safetensors")
    assert torch.equal(resumed.model.get_parameter("head.weight"), first["head.weight"])
    for made, single_process in (("tables", noisy_tables), ("revised", revised)):
        first, second = (load_file(tmp_path / f"{made}{rank}.safetensors") for rank in range(2))
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        # Sums of another order: some 1e-7 a step, of weights of about 1.
        torch.testing.assert_close(first, single_process(None), rtol=1e-4, atol=1e-5)
