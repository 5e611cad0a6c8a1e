"""Modules that keep state while they train, and how they are put to rest.

Batch norm and instance norm with running statistics, and spectral norm, are known. Any other module may write to its
buffers in training mode, as a moving average of one's own does: it is found by watching a batch pass through a copy.
At rest a module alone is in eval mode; what it holds, such as dropout, is not. A buffer that moves all the same is put
back after every step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Set

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from ..models.normalization import Normalize
from ..modules import BATCH_NORM
from ..seeding import isolated

# Their running statistics decide in eval mode; without any they are alike in both.
NORMS = (BATCH_NORM, nn.modules.instancenorm._InstanceNorm)


class Rest:
    """What is at rest in a model that is in training mode: every keeper of state whose parameters are not trained.

    Args:
        model: The model, put into training mode already; put to rest in place.
        trained: Ids of the parameters that are trained.
        exempt: Whether a keeper with a trained parameter goes on keeping state.
    """

    def __init__(self, model: nn.Module, trained: Set[int], *, exempt: bool) -> None:
        self.model = model
        self.trained = trained if exempt else frozenset()
        known = list(_known(model))
        for module, owner in known:
            if self._rests(owner):
                module.training = False
        settled = {id(module) for module, _ in known}
        # Modules that may keep state as well: they have buffers, of which nothing is known.
        self.doubtful = {
            name: module
            for name, module in model.named_modules()
            if module._buffers and id(module) not in settled and not isinstance(module, Normalize)
        }
        self.buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in self.doubtful.values()
            for name, buffer in module._buffers.items()
            if buffer is not None and self._rests(module)
        ]

    def _rests(self, module: nn.Module) -> bool:
        return not any(id(parameter) in self.trained for parameter in module.parameters())

    def watch(self, x: Tensor, found: list[str] | None = None) -> list[str]:
        """Put to rest what changes a buffer when the inputs ``x`` pass through a copy, and return its names.

        Args:
            x: A batch of inputs.
            found: What an earlier watch of this model returned, instead of another.
        """
        if found is None:
            found = _moving(self.model, self.doubtful, x)
        for module in map(self.model.get_submodule, found):
            module.training = module.training and not self._rests(module)
        return found

    @torch.no_grad()
    def hold(self) -> None:
        """Put buffers back that moved all the same."""
        for module, name, buffer, start in self.buffers:
            module._buffers[name] = buffer
            buffer.copy_(start)


def _known(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield the modules known to keep state, and beside each the one that holds the parameters it is of."""
    for module in model.modules():
        hooked = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
        if hooked or isinstance(module, NORMS):
            yield module, module
        if isinstance(module, ParametrizationList):
            yield from ((child, module) for child in module if isinstance(child, _SpectralNorm))


def _moving(model: nn.Module, doubtful: Mapping[str, nn.Module], x: Tensor) -> list[str]:
    """Return the names of modules that must be in eval mode for the buffers of the ``doubtful`` ones to stay.

    The owner of a buffer that moves, or the nearest module around it that is still in training mode, until none moves.
    """
    found: list[str] = []
    trial = copy.deepcopy(model) if doubtful else model
    while doubtful:
        with isolated(0), torch.no_grad():
            trial(x)
        stopped = set()
        for name, module in doubtful.items():
            held = trial.get_submodule(name)._buffers
            if any(value is not None and not _same(value, held.get(key)) for key, value in module._buffers.items()):
                stopped.update([around for around in _around(name) if trial.get_submodule(around).training][:1])
            held.update(copy.deepcopy(module._buffers))
        if not stopped:
            break
        found += sorted(stopped)
        for name in stopped:
            trial.get_submodule(name).training = False
    return found


def _around(name: str) -> Iterator[str]:
    """Yield a module's name and those of the modules around it, up to the model's, which is empty."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(one, other)
