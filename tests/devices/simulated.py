"""A GPU that is none: its tensors hold their numbers in memory, and what a GPU refuses is refused.

Torch has a backend for devices written in Python ("privateuseone"). It can be set up once a process and never taken
down, so that what uses it runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "simulated"
HERE = torch.device("cpu")
# For these the host would wait until the device has done all that it was told.
READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select")
BaseGenerator = torch.Generator
# They bring numbers from one device to another.
COPIES = {"aten::_to_copy", "aten::copy_", "aten::_foreach_copy_", "aten::_local_scalar_dense"}
# Their indices may be in memory, wherever the tensor is.
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}


class OnDevice(Tensor):
    """A tensor that is on the device by its own account; its numbers are those of ``held``, in memory."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: OnDevice) -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Generator(BaseGenerator):
    """A generator of the device by its own account, known by its seed: torch hands on what is below it."""

    seeds: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, device="cpu")
        made.away = torch.device(device).type == NAME
        return made

    def manual_seed(self, seed: int) -> Generator:
        if self.away:
            self.seeds.add(seed)
        super().manual_seed(seed)
        return self


class _Mode(TorchDispatchMode):
    # Of the kind of FakeTensorMode: torch then looks for no driver when a tensor is asked for on the device.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def set_up() -> None:
    """Make torch know the device: once a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    # What an assignment ``x[rows] = number`` calls below all modes.
    _LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
    _LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
    torch.Generator = Generator  # type: ignore[misc]
    # A parameter in memory cannot become one of another class in place.
    torch.__future__.set_overwrite_module_params_on_conversion(True)


@contextmanager
def available() -> Iterator[None]:
    """Let tensors be made on the device; what mixes devices, or draws by another one's generator, raises."""
    with _Mode():
        yield


reads = 0  # how often the host has waited for the device so far

_LIBRARY = torch.library.Library("aten", "IMPL")


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> OnDevice:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype, device=HERE))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _map(_held, target).copy_(_map(_held, source))
    return target


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute in memory what ``func`` makes of what the tensors hold, and bring it to where it belongs."""
    name = func._schema.name
    leaves = list(_leaves([args, list(kwargs.values())]))
    own = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, OnDevice)}
    asked = kwargs.get("device")
    away = bool(own) if asked is None else torch.device(asked).type == NAME
    brought_back = name in ("aten::_to_copy", "aten::copy_") and bool(own) and not away
    if own and (name in READS or brought_back):
        global reads
        reads += 1
    if name not in COPIES:
        _check(name, args, leaves, away)
    if asked is not None:
        kwargs = {**kwargs, "device": HERE}
    made = func(*_map(_held, args), **{key: _map(_held, value) for key, value in kwargs.items()})
    if name == "aten::copy_":
        return args[0]
    # What is changed in place stays what it is.
    return _map(lambda out: own[id(out)] if id(out) in own else OnDevice(out), made, Tensor) if away else made


def _held(value: OnDevice) -> Tensor:
    return value.held


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _map(function: Any, value: Any, kind: type = OnDevice) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)([_map(function, part, kind) for part in value])
    return function(value) if isinstance(value, kind) else value


def _check(name: str, args: Any, leaves: list[Any], away: bool) -> None:
    if name in INDEXED and isinstance(args[0], OnDevice):
        leaves = [args[0], *args[2:]]
    # A number in memory goes with tensors anywhere.
    apart = [
        leaf
        for leaf in leaves
        if isinstance(leaf, Tensor) and isinstance(leaf, OnDevice) != away and (leaf.dim() or not away)
    ]
    if apart:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got some in memory")
    for leaf in leaves:
        if isinstance(leaf, BaseGenerator) and (leaf.initial_seed() in Generator.seeds) != away:
            raise RuntimeError(f"Expected a generator of the device, but {name} got another")
