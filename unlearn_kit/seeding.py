"""Random numbers: derived seeds, and a fence around the caller's random state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .errors import check_count


def derive(seed: int, *keys: object) -> int:
    """Return a seed in [0, 2**63) that depends on ``seed`` and on ``keys`` only.

    Every random number of a run comes from a seed derived for its phase, stream, epoch or step, so nothing about
    random state has to be saved to resume a run with the same bits.

    Raises:
        TypeError: When ``seed`` is no integer.
    """
    own = check_count("seed", seed, low=None)
    digest = hashlib.blake2b(repr((own, *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *keys: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new torch generator seeded with ``derive(seed, *keys)``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *keys))


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the global random states of Python, NumPy and torch, and restore the caller's on leaving.

    One thing is not kept: a seed given to CUDA alone before CUDA was first used. The CPU's seed takes its place.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state to protect
    # To ask for the state of GPUs that nothing has used yet would open a context on them. They have none so far: only
    # the seed that waits for their first use, which the caller gave to the CPU too.
    awake, own_seed = torch.cuda.is_initialized(), torch.initial_seed()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if awake else ()):
        try:
            seed_everything(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            if not awake and torch.cuda.is_available():
                torch.cuda.manual_seed_all(own_seed)


def seed_everything(seed: int) -> None:
    """Seed the global random states of Python, NumPy and torch. Use inside :func:`isolated` only."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def seed_draws(seed: int) -> None:
    """Seed the global random states of Python, NumPy and torch on the CPU, in microseconds; inside :func:`isolated`.

    ``torch.manual_seed`` takes up to a millisecond, since it keeps a stack trace for every kind of device.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what a user's augmentation draws from
    torch.default_generator.manual_seed(seed)
