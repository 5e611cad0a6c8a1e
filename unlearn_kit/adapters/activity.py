"""Whether adapters act: seen from one batch of inputs, on copies, with nothing drawn from the caller's random state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..modules import blank_copy, frozen_copy
from ..seeding import generator, isolated
from .structure import is_adapted, plain_name, plain_names
from .switching import merge, only, switched_off

# How far an adapter is moved: its update is so large beside the weight.
MOVE = 0.1
# How far merged outputs may be off, as a share of how far the adapters move them. What an adapter that does not act
# would move is off by all of it; what float32 rounds is a thousandth of this.
TOLERANCE = 1e-2


def unreached(model: nn.Module, layers: Sequence[str], example: Tensor) -> list[str]:
    """Return those ``layers`` of ``model`` on whose weights its outputs do not depend in eval mode.

    Args:
        model: Any module; untouched.
        layers: Names of layers with a weight, as they are in the original.
        example: A batch of inputs.

    Raises:
        ValueError: When the model does not take the example.
    """
    if not layers:
        return []
    probe = frozen_copy(model)
    modules: dict[str, Any] = plain_names(probe)
    weights = [modules[name].weight.requires_grad_(True) for name in layers]
    with torch.enable_grad():
        outputs = [output.float().sum() for output in _outputs(probe, example) if output.requires_grad]
        if not outputs:
            return list(layers)
        gradients = torch.autograd.grad(torch.stack(outputs).sum(), weights, allow_unused=True)
    return [name for name, gradient in zip(layers, gradients, strict=True) if gradient is None]


def check_merges(adapted: nn.Module, name: str, example: Tensor) -> None:
    """Move the adapter ``name`` in a copy, and see that merging it gives the same outputs.

    Raises:
        ValueError: Naming the layers whose adapter acts otherwise than its merged weight.
    """
    trial = blank_copy(adapted).eval()
    if any(p.dtype in (torch.half, torch.bfloat16) for p in trial.parameters()):
        trial, example = trial.float(), example.float()  # half precision rounds by more than what is looked for
    factors: dict[str, Any] = {
        key: module for key, module in trial.named_modules() if name in getattr(module, "lora_B", {})
    }
    source = generator(0, "adapters", "check")
    with torch.no_grad():
        for layer in factors.values():
            up = layer.lora_B[name].weight
            up.copy_(torch.randn(up.shape, generator=source))
            layer.scaling[name] = 1.0
            up.mul_(MOVE * layer.base_layer.weight.norm() / layer.get_delta_weight(name).norm().clamp(min=1e-12))
        if _agree(trial, name, example):
            return
        wrong = []
        for key, layer in factors.items():
            for other in factors.values():
                other.scaling[name] = float(other is layer)
            if not _agree(trial, name, example):
                wrong.append(plain_name(key))
    if wrong:  # where each of them agrees, it was a choice inside the model that tips at a rounding
        raise ValueError(f"expected where to choose layers whose adapter acts as its merged weight, but got {wrong}")


def _agree(adapted: nn.Module, name: str, example: Tensor) -> bool:
    with only(adapted, [name]):
        moved, merged = list(_outputs(adapted, example)), list(_outputs(merge(adapted).eval(), example))
    with switched_off(adapted):
        start = list(_outputs(adapted, example))
    far = sum(float((a - b).abs().max()) for a, b in zip(moved, start, strict=True))
    off = sum(float((a - b).abs().max()) for a, b in zip(moved, merged, strict=True))
    rounding = sum(float(a.abs().max()) for a in start) * 1e-5
    return off <= TOLERANCE * far + rounding


def _outputs(model: nn.Module, example: Tensor) -> Iterator[Tensor]:
    """Yield every floating-point tensor of a model's outputs, however they are nested."""
    try:
        with isolated(0):
            outputs = model(example.clone())  # some networks write into their inputs
    except Exception as error:
        came = f"with inputs of shape {tuple(example.shape)}: {type(error).__name__}: {error}"
        if is_adapted(model):
            raise ValueError(f"expected model to run with adapters in its layers, but it fails {came}") from error
        raise ValueError(
            f"expected example to be a batch that {type(model).__name__} takes, but it fails {came}"
        ) from error
    yield from _tensors(outputs)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
