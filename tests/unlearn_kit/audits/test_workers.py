"""Work shared among processes: the same bits, the same errors, nothing left behind."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import algorithms
from unlearn_kit import UnlearnTask, models, processes
from unlearn_kit.audits.shadow import ShadowAudit
from unlearn_kit.audits.workers import Workers


def audit(cache: Path | None = None, workers: int = 1, **options: Any) -> ShadowAudit:
    y = torch.arange(44) % 3
    x = torch.randn(44, 6, generator=torch.Generator().manual_seed(0)) + torch.nn.functional.one_hot(y, 6)
    train, test = TensorDataset(x[:30], y[:30]), TensorDataset(x[30:], y[30:])
    task = UnlearnTask.forget_samples(train, test, range(6), num_classes=3)
    build = partial(models.mlp, 3, input_shape=(6,), hidden=(16,))
    given = {"models": 10, "epochs": 2, "batch_size": 10, "mode": "vmap", "keep": 3, **options}
    return ShadowAudit(build, task, cache=cache, workers=workers, **given)


def test_two_workers_find_the_bits_that_one_finds(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    options = {"epochs": 2, "batch_size": 8}
    one, two = audit(), audit(tmp_path, 2, progress=lambda *step: steps.append(step))
    threads = torch.get_num_threads()
    seen = [os.environ.get(name) for name in processes.THREAD_VARIABLES]
    torch.set_num_threads(1)
    try:
        with two.working():
            assert multiprocessing.active_children() == []  # not before there is work
            for expected, got in (
                (one.oracles(), two.oracles()),
                (
                    one.margins(algorithms.finetune, options=options)[0],
                    two.margins(algorithms.finetune, options=options)[0],
                ),
                (one.originals().stack, two.originals().stack),
                (
                    one.revised(algorithms.finetune, options=options).stack,
                    two.revised(algorithms.finetune, options=options).stack,
                ),
            ):
                assert expected.keys() == got.keys()
                assert all(torch.equal(expected[name], got[name]) for name in expected)
            assert len(multiprocessing.active_children()) == 2
            assert [step for step in steps if step[0] == "unlearning"] == [("unlearning", n, 10) for n in range(1, 11)]
            assert ("training oracles", 10, 10) in steps
            # An error of a process is the caller's, and ends all of them.
            with pytest.raises(ValueError, match="expected lr"):
                two.margins(algorithms.finetune, options={"lr": -1.0})
            assert multiprocessing.active_children() == []
    finally:
        torch.set_num_threads(threads)
    assert [os.environ.get(name) for name in processes.THREAD_VARIABLES] == seen
    # What two workers kept serves any number, and needs no process.
    again = audit(tmp_path, 7)
    assert again.audit(algorithms.finetune, options=options).seconds == 0
    assert torch.equal(again.revised(algorithms.finetune, options=options).stack["head.bias"], expected["head.bias"])
    assert (again.cache.misses, multiprocessing.active_children()) == (0, [])


def test_a_process_that_dies_is_named_and_replaced() -> None:
    with Workers(7, 1) as workers:
        assert list(workers.each(divmod, [(2,), (4,)])) == [(3, 1), (1, 3)]
        assert list(workers.each(math.gcd, [])) == []
        answers = workers.each(operator.mul, [(place,) for place in range(5)])
        assert next(answers) == 0
        with pytest.raises(RuntimeError, match=r"^a worker process died \(exit code 7\)$"):
            list(workers.each(os._exit, [()]))
        answers.close()
        assert multiprocessing.active_children() == []


def test_what_cannot_be_sent_is_refused_before_a_process_starts() -> None:
    with pytest.raises(TypeError, match=r"expected what workers are sent to be picklable .* no lambdas"):
        list(Workers(lambda: 0, 2).each(operator.call, [()]))
    assert multiprocessing.active_children() == []


def test_revised_models_are_those_whose_margins_were_read() -> None:
    found = audit(models=4, keep=2)
    options = {"epochs": 1, "batch_size": 8}
    margins, _ = found.margins(algorithms.finetune, options=options)
    misses = found.cache.misses
    revised = found.revised(algorithms.finetune, options=options)
    assert found.cache.misses == misses
    assert len(revised) == 2
    alone = algorithms.finetune(found.originals()[1], found._steps.task, seed=found.unlearning_seed(1), **options).model
    for name, value in alone.state_dict().items():
        assert torch.equal(revised[1].state_dict()[name], value)
    x, y = found.splits["forget"].tensors
    p = revised[1](x).double().softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(margins["forget"][1], torch.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    # Where nothing was kept, they are made, and no others.
    steps: list[Any] = []
    fresh = audit(models=4, keep=2, progress=lambda what, done, of: steps.append((what, done, of)))
    again = fresh.revised(algorithms.finetune, options=options)
    assert torch.equal(again.stack["head.bias"], revised.stack["head.bias"])
    assert steps[-2:] == [("unlearning", 1, 2), ("unlearning", 2, 2)]


def test_only_what_is_asked_for_is_kept() -> None:
    with pytest.raises(ValueError, match="expected keep to be at least 1, but got 0"):
        audit(keep=0).revised(algorithms.finetune)
    with pytest.raises(ValueError, match="expected workers to be at least 1, but got 0"):
        audit(workers=0)
    with pytest.raises(ValueError, match="expected keep to be at least 0, but got -1"):
        audit(keep=-1)


def other_architecture(model: torch.nn.Module, task: UnlearnTask, *, seed: int) -> torch.nn.Module:
    return torch.nn.Linear(6, 3)


def test_another_architecture_is_not_kept_as_the_original_s() -> None:
    with pytest.raises(
        ValueError, match="expected algorithm to return the architecture it was given, but got a Linear"
    ):
        audit(models=4).revised(other_architecture)
