"""What an argument is said to be in a signature, held against what comes, before anything runs."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar

from .errors import check_choice, check_count, check_number

T = TypeVar("T", bound=Callable[..., Any])


class Limit(ABC):
    """What else holds of an argument than its type: ``Annotated[float, Between(0, 1)]``."""

    @abstractmethod
    def check(self, name: str, value: Any) -> object:
        """Refuse a value of the annotated type that the argument cannot be, by its name."""


@dataclass(frozen=True)
class Between(Limit):
    """A finite number in an interval, as :func:`~unlearn_kit.errors.check_number` takes it."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def check(self, name: str, value: Any) -> float:
        """Refuse a number outside."""
        return check_number(name, value, low=self.low, high=self.high, open_low=self.open_low, open_high=self.open_high)


@dataclass(frozen=True)
class AtLeast(Limit):
    """An int of at least ``low``."""

    low: int

    def check(self, name: str, value: Any) -> int:
        """Refuse a smaller one."""
        return check_count(name, value, low=self.low)


NonNegative = Annotated[float, Between(0)]
Positive = Annotated[float, Between(0, open_low=True)]
Share = Annotated[float, Between(0, 1)]
PositiveShare = Annotated[float, Between(0, 1, open_low=True)]
Count = Annotated[int, AtLeast(1)]
CountOrZero = Annotated[int, AtLeast(0)]


def checked(function: T) -> T:
    """Return the function, or the class, whose arguments are held against their annotations at every call.

    Numbers are Python's or NumPy's, and no bools; sequences are no text, and may be tensors or arrays. Members of lists
    and dicts are looked at, too. What an annotation leaves open (``Any``), and ranges, are for the function to check.

    The decorated function raises:
        TypeError: When an argument is of another type, by its name.
        ValueError: When it is none of the words that a ``Literal`` lists, by its name.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)
    # Annotations name what is imported for type checkers alone: they are read when all of it is there.
    hints = functools.cache(lambda: hints_of(function))

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            given = signature.bind(*arguments, **options).arguments
        except TypeError:  # Too few, too many, unknown: Python says it best.
            return function(*arguments, **options)
        for name, value in given.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                for option, one in value.items():
                    check_type(option, one, hints().get(option, Any))
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                for one in value:
                    check_type(name, one, hints().get(name, Any))
            else:
                check_type(name, value, hints().get(name, Any))
        return function(*arguments, **options)

    return typing.cast(T, call)


def check_type(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not what ``hint`` says.

    Raises:
        TypeError: When it is of another type, or a member of it is.
        ValueError: When it is none of the words of a ``Literal``, larger than a float can be, or outside a
            :class:`Limit` of an ``Annotated``.
    """
    options = _options(hint)
    if float in options and isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(f"expected {name} to be a number that a float can hold, but got an int of more than 1e308")
    fitting = [option for option in options if option is Any or _is(value, option)]
    if fitting:
        _check_members(name, value, fitting)
        for limit in _limits(value, hint):
            limit.check(name, value)
        return
    words = [word for option in options if typing.get_origin(option) is Literal for word in typing.get_args(option)]
    if words and (len(options) == 1 or isinstance(value, str)):
        check_choice(name, value, words)
    numbers = any(option in (int, float) for option in options)
    got = f"{type(value).__name__}: {value!r}" if numbers and isinstance(value, SHOWN) else type(value).__name__
    swapped = "; the model comes before the task" if hasattr(value, "_has_splits") else ""
    raise TypeError(f"expected {name} to be {_told(options)}, but got {got}{swapped}")


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the types of which one must fit."""
    if typing.get_origin(hint) is Annotated:
        return _options(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(option for part in typing.get_args(hint) for option in _options(part))
    return (hint,)


def _limits(value: Any, hint: Any) -> Iterator[Limit]:
    """Yield what else must hold of a value, by those of the annotated types that fit it."""
    if typing.get_origin(hint) is Annotated:
        if any(option is Any or _is(value, option) for option in _options(hint)):
            yield from (limit for limit in hint.__metadata__ if isinstance(limit, Limit))
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _limits(value, part)


def _is(value: Any, hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    if kind is Literal:
        return (value is None or isinstance(value, str)) and value in typing.get_args(hint)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is tuple:
        return isinstance(value, (tuple, list))
    if kind in (Sequence, list, Iterable):
        if hasattr(value, "__array__"):
            return _holds(value, *typing.get_args(hint)[:1])
        return isinstance(value, Iterable if kind is Iterable else Sequence) and not isinstance(value, (str, bytes))
    if kind is Callable:
        return callable(value)
    if kind is type(None):
        return value is None
    if getattr(kind, "__module__", "") == "torch" and kind.__name__ == "device":  # of which the number is a GPU's
        return isinstance(value, kind) or (isinstance(value, int) and not isinstance(value, bool))
    if hasattr(kind, "_has_splits"):  # A task: whatever has its splits will do.
        return bool(kind._has_splits(value))
    # A protocol, a type variable, whatever cannot be asked: the function itself must look.
    return isinstance(value, kind) if isinstance(kind, type) and not getattr(kind, "_is_protocol", False) else True


def _holds(array: Any, member: Any = Any) -> bool:
    """Return whether the members of a tensor or an array can be what is expected of those of a sequence."""
    if isinstance(member, type) and member not in (int, float, bool, str, object):
        return False
    dtype = getattr(array, "dtype", None)  # NumPy's tells its kind; a tensor holds numbers alone
    kind = getattr(dtype, "kind", "c" if getattr(dtype, "is_complex", False) else "f")
    return kind in ("U" if member is str else "biuf")


def _check_members(name: str, value: Any, fitting: Sequence[Any]) -> None:
    """Refuse what is inside a value of one of several types that all fit it, where it is right for none of them."""
    for last, option in enumerate(fitting, start=1 - len(fitting)):
        try:
            for member, one, kind in _members(name, value, option):
                check_type(member, one, kind)
            return
        except (TypeError, ValueError):
            if last == 0:
                raise


def _members(name: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what is inside a list, a tuple or a dict, with its name and what it should be."""
    # Of a protocol it is not known what its arguments say; NumPy's of nested sequences means any depth of them.
    inside = () if getattr(typing.get_origin(hint), "_is_protocol", False) else typing.get_args(hint)
    if isinstance(value, Mapping) and len(inside) == 2:
        for key, one in value.items():
            yield f"every name in {name}", key, inside[0]
            yield f"{name}[{key!r}]", one, inside[1]
    elif isinstance(value, (list, tuple)) and inside and typing.get_origin(hint) is not tuple:
        # The first of them: a million indices are not asked one by one.
        yield from ((f"{name}[{place}]", one, inside[0]) for place, one in enumerate(value[:ASKED]))
    elif isinstance(value, (list, tuple)) and inside:
        kinds = inside[:1] * len(value) if inside[-1] is Ellipsis else inside
        if len(kinds) != len(value):
            raise ValueError(f"expected {name} to hold {len(kinds)} values, but got {len(value)}")
        yield from ((f"{name}[{place}]", one, kind) for place, (one, kind) in enumerate(zip(value, kinds, strict=True)))


def _told(options: Sequence[Any]) -> str:
    words = []
    for option in [option for option in options if option is not type(None)] or options:
        kind = typing.get_origin(option) or option
        if kind is Literal:
            words += [repr(word) for word in typing.get_args(option)]
        elif kind is Sequence and (named := [_name(part) for part in typing.get_args(option) if _is_class(part)]):
            words.append(f"a sequence of {named[0]}")
        elif kind in TOLD:
            words.append(TOLD[kind])
        else:
            name = _name(kind)
            words.append(f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")
    words = list(dict.fromkeys(words))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _is_class(hint: Any) -> bool:
    return isinstance(hint, type) and hint not in TOLD


def _name(kind: type) -> str:
    return "torch.nn.Module" if kind.__module__ == "torch.nn.modules.module" else kind.__qualname__


ASKED = 64  # members of a list that are looked at
# Of these the value is told, where a number is expected.
SHOWN = (bool, int, float, str)
TOLD: dict[Any, str] = {
    int: "an int",
    float: "a number",
    bool: "a bool",
    str: "a str",
    tuple: "a tuple",
    Sequence: "a sequence",
    list: "a list",
    Iterable: "an iterable",
    Mapping: "a mapping",
    Callable: "a function",
    type(None): "None",
}


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations by name, with those of the options that ``**options`` stands for."""
    hints = _resolved(function)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            hints.pop(parameter.name, None)
            if typing.get_origin(hint) is typing.Unpack:
                hints |= _resolved(typing.get_args(hint)[0])
    return hints


def _resolved(owner: Any) -> dict[str, Any]:
    """Return what the annotations of a function or a class mean; ``Any`` for what is imported for type checkers."""
    tasks = sys.modules.get(f"{__package__}.tasks")  # Without it, nobody has a task to give.
    names = vars(sys.modules[owner.__module__]) | {"UnlearnTask": getattr(tasks, "UnlearnTask", Any)}
    hints = {}
    for name, annotation in inspect.get_annotations(owner).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints[name] = typing.get_type_hints(alone, names, include_extras=True)[name]
        except NameError:
            hints[name] = Any
    return hints
