"""Fresh weights: what "from scratch" means for a network that is already trained."""

from __future__ import annotations

import torch
from torch import nn

from ..arguments import checked
from ..modules import blank_copy
from ..seeding import isolated

# In the order in which they are called. The second is the name some of torch's own modules use
# (MultiheadAttention).
RESETS = ("reset_parameters", "_reset_parameters", "reset_running_stats")


@checked
def fresh_copy(model: nn.Module, *, seed: int) -> nn.Module:
    """Return a deep copy of ``model`` whose every parameter and running statistic is initialised anew.

    Each module's own ``reset_parameters`` (or ``_reset_parameters``) and ``reset_running_stats`` are called,
    children before their parents, so a parent's special initialisation has the last word. Buffers of modules
    that have none of these are constants, such as the mean and std of ``Normalize``, and stay. Modes,
    ``requires_grad`` and the declared head stay, gradients go. The weights depend on ``seed`` and the
    architecture only, never on the old weights; the caller's random state is left alone.

    A network that was built with an initialisation its modules do not know (torchvision's ResNet draws its
    convolutions from a wider normal) gets its layers' own defaults; where that matters, build it anew
    instead.

    Raises:
        TypeError: When ``model`` is no module.
        ValueError: Naming each module that owns parameters and cannot reset them.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, but got {type(model).__name__}")
    stuck = [_label(name, module) for name, module in model.named_modules() if _owns(module) and not _can_reset(module)]
    if stuck:
        raise _refusal(model, stuck)
    with isolated(seed), torch.no_grad():
        fresh = blank_copy(model)
        for parameter in fresh.parameters():
            if _has_numbers(parameter):
                # Whatever a reset leaves out then shows, and no old weight can shine through.
                parameter.fill_(torch.nan)
        for module in reversed(list(fresh.modules())):
            for method in RESETS:
                if callable(getattr(module, method, None)):
                    getattr(module, method)()
    stuck = [_label(name, module) for name, module in fresh.named_modules() if _has_nan(module)]
    if stuck:
        raise _refusal(model, stuck)
    return fresh


@checked
def reinitialize_(module: nn.Module, *, seed: int) -> nn.Module:
    """Give ``module`` (say, a network's last block) fresh weights in place, as :func:`fresh_copy` does;
    returns it.

    Raises:
        ValueError: As :func:`fresh_copy`, and then ``module`` is untouched.
    """
    module.load_state_dict(fresh_copy(module, seed=seed).state_dict())
    return module


def _has_numbers(parameter: nn.Parameter) -> bool:
    # Lazy parameters have none yet, and integer ones are not trained.
    return not nn.parameter.is_lazy(parameter) and (parameter.is_floating_point() or parameter.is_complex())


def _owns(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _can_reset(module: nn.Module) -> bool:
    return any(callable(getattr(module, method, None)) for method in RESETS[:2])


def _has_nan(module: nn.Module) -> bool:
    return any(_has_numbers(p) and bool(p.isnan().any()) for p in module.parameters(recurse=False))


def _label(name: str, module: nn.Module) -> str:
    return f"{name or 'the model itself'} ({type(module).__name__})"


def _refusal(model: nn.Module, stuck: list[str]) -> ValueError:
    return ValueError(
        f"expected every module of model ({type(model).__name__}) that owns parameters to reset them all in "
        f"reset_parameters(), but got modules that do not: {', '.join(stuck)}; where there is an option build=, give "
        "it a function that makes a fresh network"
    )
