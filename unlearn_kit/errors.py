"""Errors of the toolkit, and the checks that raise them.

A user's mistake is a ``ValueError`` or ``TypeError`` whose text names the argument, what was expected and what
came. The checks here give those texts one form.
"""

from __future__ import annotations

import difflib
import math
import reprlib
import sys
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class CheckpointError(ValueError):
    """A model or run file that cannot be read: not safetensors, cut short, or of another network."""


class DataWarning(UserWarning):
    """What is to be known of data, or of a request, before anything is made of it; it is kept in ``notes``, too."""


class DataNotFoundError(FileNotFoundError):
    """A data set that is not on this machine; the text says where it was looked for and how to get it."""


class DivergenceError(RuntimeError):
    """Training produced a non-finite number.

    Attributes:
        phase: Its name.
        step: 0-based, within the phase.
        part: The term, or "parameters".
        state: The last ``state_dict`` at which everything was finite, on the CPU.
    """

    def __init__(self, phase: str, step: int, part: str, state: dict[str, torch.Tensor]) -> None:
        super().__init__(
            f"phase {phase!r} diverged at step {step}: {part!r} is not finite; the last finite weights are in "
            "the error's .state. A smaller lr, clip= or a smaller weight usually helps"
        )
        self.phase, self.step, self.part, self.state = phase, step, part, state

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process hands its error over pickled; by default that would keep the message alone.
        return type(self), (self.phase, self.step, self.part, self.state)


LISTED = 60  # choices, at most, that an error lists
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxset = _BRIEF.maxfrozenset = _BRIEF.maxdict = _BRIEF.maxdeque = 20
_BRIEF.maxlong = 50
_BRIEF.maxlevel = 4


def shown(value: Any) -> str:
    """Return ``repr(value)`` as an error shows it: cut where it is long, and there whatever the value is."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # Python refuses to write out the longest of them.
        return f"an int of {value.bit_length()} bits"
    try:
        text = _BRIEF.repr(value)
    except Exception:  # The repr of what came may be what is wrong with it.
        return f"a {type(value).__name__}"
    return text if len(text) <= 500 else f"{text[:500]}..."


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a float when it is a finite number (Python's or NumPy's) in the interval.

    Raises:
        TypeError: When it is no number.
        ValueError: When it is not finite or outside.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected {name} to be a number, but got {type(value).__name__}: {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    outside = number < low or number > high or (open_low and number == low) or (open_high and number == high)
    if not math.isfinite(number) or outside:
        left, right = (
            "(" if open_low or low == -math.inf else "[",
            ")" if open_high or high == math.inf else "]",
        )
        raise ValueError(f"expected {name} in {left}{low:g}, {high:g}{right}, but got {shown(value)}")
    return number


def check_count(name: str, value: Any, *, low: int | None = 1) -> int:
    """Return ``value`` as an int when it is one (Python's or NumPy's) of at least ``low``; None for any int.

    Raises:
        TypeError: When it is no int.
        ValueError: When it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {name} to be an int, but got {type(value).__name__}: {shown(value)}")
    if low is not None and value < low:
        raise ValueError(f"expected {name} to be at least {low}, but got {shown(int(value))}")
    return int(value)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` when it is one of ``choices``; the error suggests the nearest.

    Raises:
        ValueError: When it is not.
    """
    allowed = list(choices)
    if not isinstance(value, str) or value not in allowed:
        listed = allowed if len(allowed) <= LISTED else f"{len(allowed):,} names"
        raise ValueError(f"expected {name} to be one of {listed}, but got {shown(value)}{nearest(value, allowed)}")
    return str(value)


def nearest(value: Any, allowed: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the name that is nearest to ``value``, in either case; empty for none."""
    names = {name.casefold(): name for name in reversed(list(allowed))}
    near = difflib.get_close_matches(value.casefold(), names, n=1) if isinstance(value, str) else []
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def check_path_exists(name: str, path: str | Path) -> Path:
    """Return ``path`` as a Path when it exists.

    Raises:
        FileNotFoundError: By the name of the argument when it does not.
        TypeError: When it is no path.
    """
    if not isinstance(path, (str, Path)):
        raise TypeError(f"expected {name} to be a path, but got {type(path).__name__}: {shown(path)}")
    found = Path(path)
    if not found.exists():
        raise FileNotFoundError(f"expected {name} to be an existing path, but got {str(path)!r}")
    return found
