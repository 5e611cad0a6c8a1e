"""Derived seeds, and the fence around the caller's random state."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_kit.seeding import derive, generator, isolated

keys = st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=4)), max_size=4)


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def rolls():
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


@given(seed=st.integers(), first=keys, second=keys)
def test_a_seed_depends_on_the_seed_and_the_keys_alone(seed, first, second):
    assert 0 <= derive(seed, *first) < 2**63
    assert (derive(seed, *first) == derive(seed, *second)) == (first == second)
    assert derive(seed, *first) != derive(seed + 1, *first)


def test_keys_do_not_run_together():
    assert len({derive(0, "a", "b"), derive(0, "ab"), derive(0, "a", 1), derive(0, "a", "1"), derive(0, "a")}) == 5


def test_derived_seeds_are_the_same_in_every_process_and_release():
    # Runs that are resumed, and results that are repeated, rest on this number.
    assert derive(3, "fit", "step", 7) == 8956741201273886050


def test_a_numpy_seed_is_the_same_seed():
    assert derive(np.int64(3), "fit") == derive(3, "fit")
    with pytest.raises(TypeError, match="float"):
        derive(3.0)


def test_generators_are_their_own():
    before = states()
    first, again, other = (torch.rand(4, generator=generator(0, key)) for key in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert states() == before


def test_isolation_repeats_inside_and_leaves_no_trace():
    before = states()
    with isolated(5):
        first = rolls()
    with isolated(5):
        again = rolls()
    with isolated(6):
        other = rolls()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert states() == before


def test_isolation_ends_with_an_error_too():
    before = states()
    with pytest.raises(KeyError), isolated(5):
        raise KeyError(rolls())
    assert states() == before


def test_isolation_nests():
    with isolated(1):
        rolls()
        expected = rolls()
    with isolated(1):
        rolls()
        with isolated(2):
            rolls()
        assert rolls() == expected


class FakeCuda:
    """Two GPUs whose state is the last seed, or what was drawn since; none of them is in use until :meth:`wake`."""

    def __init__(self, monkeypatch, *, awake):
        self.awake, self.waiting, self.states, self.asked = awake, None, [90, 91], []
        for name, function in {
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "is_initialized": lambda: self.awake,
            "manual_seed_all": self.seed,
            "get_rng_state": lambda device: self.asked.append(device) or self.states[device],
            "set_rng_state": lambda state, device: self.states.__setitem__(device, state),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def seed(self, seed):
        if self.awake:
            self.states = [seed, seed]
        else:
            self.waiting = seed

    def wake(self):
        self.awake = True
        if self.waiting is not None:
            self.states = [self.waiting, self.waiting]


def test_gpus_in_use_are_seeded_and_restored(monkeypatch):
    cuda = FakeCuda(monkeypatch, awake=True)
    with isolated(5):
        assert cuda.states == [5, 5]
    assert cuda.states == [90, 91]


def test_gpus_that_nothing_has_used_are_left_asleep_with_the_seed_of_the_caller(monkeypatch):
    cuda = FakeCuda(monkeypatch, awake=False)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(11)
        torch.rand(3)
        before = states()
        with isolated(5), isolated(6):
            assert cuda.waiting == 6
        assert states() == before
    assert cuda.asked == []
    assert not cuda.awake
    assert cuda.waiting == 11


def test_gpus_first_used_in_isolation_are_seeded_there_and_then_for_the_caller(monkeypatch):
    cuda = FakeCuda(monkeypatch, awake=False)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(11)
        with isolated(5):
            cuda.wake()
            assert cuda.states == [5, 5]
            with isolated(6):
                assert cuda.states == [6, 6]
            assert cuda.states == [5, 5]
        assert cuda.states == [11, 11]


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_every_derived_seed_is_a_legal_one(seed):
    with isolated(seed):
        assert 0 <= rolls()[0] < 1
