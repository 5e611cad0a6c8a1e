"""Random numbers: derived seeds, and a fence around the caller's random state and torch's global settings."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from .errors import check_count

P = ParamSpec("P")
R = TypeVar("R")

AUTOCASTING = ("cpu", "cuda", "mps")  # the kinds of device on which a caller's autocast may be on


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
def standard_settings() -> Iterator[None]:
    """Give torch's global settings their defaults, and restore the caller's on leaving.

    Gradients are recorded outside inference mode, new tensors are float32 on the CPU, and no autocast is on: what is
    computed inside does not depend on where it is called from.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            # Not always: within it every call of torch passes through Python.
            stack.enter_context(torch.device("cpu"))
        for device in AUTOCASTING:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def standardized(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` as it is under :func:`standard_settings`."""

    # Not as a context manager's own decorator, which cannot be pickled.
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with standard_settings():
            return function(*args, **kwargs)

    return wrapped


def refuse_inference_mode(name: str) -> None:
    """Refuse to be called in inference mode, whose tensors can never be trained.

    Args:
        name: What is called.

    Raises:
        ValueError: In inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(f"expected {name} to be called outside torch.inference_mode(), but it is on")


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the global random states of Python, NumPy and torch, and restore the caller's on leaving.

    Torch's global settings are the standard ones inside (:func:`standard_settings`), so that gradients are recorded.

    One thing is not kept: a seed given to CUDA alone before CUDA was first used. The CPU's seed takes its place.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state to protect
    # To ask for the state of GPUs that nothing has used yet would open a context on them. They have none so far: only
    # the seed that waits for their first use, which the caller gave to the CPU too.
    awake, own_seed = torch.cuda.is_initialized(), torch.initial_seed()
    forked = range(torch.cuda.device_count()) if awake else ()
    with standard_settings(), torch.random.fork_rng(devices=forked):
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
