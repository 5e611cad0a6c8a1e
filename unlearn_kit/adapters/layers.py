"""Adapted layers whose adapters act whether their parent calls them or reads their weight.

Several modules never call a layer that they hold: ``nn.MultiheadAttention`` and torchvision's Swin hand the layer's
weight to a function of their own, and ``nn.TransformerEncoderLayer`` hands the weights of all its layers to one fused
kernel in eval mode. What they read is then the sum of the weight and the adapters.

A layer whose class or hooks do more than convolve or multiply (a standardised weight, padding of its own) is called
with that sum in the place of its weight, so that merging never changes what it does.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.func import functional_call

if TYPE_CHECKING:
    from peft.tuners.lora import Linear as _Layer
else:
    _Layer = object

ADAPTABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

# What decides where a convolution looks, beyond what peft hands on to the first factor.
FOOTPRINT = ("dilation", "padding_mode", "_reversed_padding_repeated_twice")


def kind_of(layer: nn.Module) -> type[nn.Module]:
    """Return the one of :data:`ADAPTABLE` that a layer is."""
    return next(kind for kind in ADAPTABLE if isinstance(layer, kind))


class ActingWeight(_Layer):
    """An adapted layer with a weight that acts wherever it is read; put before a class of peft's adapted layers."""

    _plain = True

    def update_layer(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Make the two factors of an adapter, plain layers of which the first looks where the original does."""
        base: nn.Module = self.get_base_layer()
        own, kind = type(base), kind_of(base)
        base.__class__ = kind  # peft makes the factors of the original's class, which may be built in another way
        try:
            super().update_layer(adapter_name, *args, **kwargs)
        finally:
            base.__class__ = own
        for name in FOOTPRINT:
            if hasattr(base, name):
                setattr(self.lora_A[adapter_name], name, getattr(base, name))
        self._plain = _is_plain(base, kind)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the original's output and that of every active adapter, added up."""
        if self._plain or self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        return cast(Tensor, functional_call(self.get_base_layer(), {"weight": self.weight}, (x, *args), kwargs))

    @property
    def weight(self) -> Tensor:
        """Return the weight that acts: the original's, plus the update of every active adapter.

        Dropout keeps or drops each input channel for the whole batch here, since the inputs are not seen.
        """
        weight = cast(Tensor, self.get_base_layer().weight)
        if self.disable_adapters or self.merged:
            return weight
        for name in self.active_adapters:
            if name in self.lora_A:
                update = self.get_delta_weight(name).to(weight.dtype)
                channels = self.lora_dropout[name](update.new_ones(1, update.shape[1]))
                weight = weight + update * channels.reshape(1, -1, *(1 for _ in update.shape[2:]))
        return weight

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the update of one adapter, of the weight's shape."""
        up, down = (cast(Tensor, factors[adapter].weight) for factors in (self.lora_B, self.lora_A))
        update = up.flatten(1) @ down.flatten(1) * self.scaling[adapter]
        return update.reshape(up.shape[0], *down.shape[1:])

    def __getattr__(self, name: str) -> Any:
        """Find what a parent asks of the layer it knew, such as its stride."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("base_layer", "weight"):  # a failure inside ``weight`` is no reason to read the original's
                raise
            return getattr(self.base_layer, name)


def _is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a layer does what its kind does and no more, so that the adapters' outputs may be added to its."""
    overridden = any(
        name in vars(layer) or getattr(type(layer), name, None) is not getattr(kind, name, None)
        for name in ("forward", "_conv_forward")
    )
    return not (overridden or layer._forward_hooks or layer._forward_pre_hooks)


@functools.cache
def layer_kinds() -> dict[type[nn.Module], type[nn.Module]]:
    """Return the kind of adapted layer for each kind of layer."""
    from peft.tuners.lora import layer

    kinds: dict[type[nn.Module], type[nn.Module]] = {}
    for kind in ADAPTABLE:
        bases = (ActingWeight, getattr(layer, kind.__name__))
        kinds[kind] = type(f"Adapted{kind.__name__}", bases, {"__module__": __name__})
    return kinds


def __getattr__(name: str) -> Any:
    """Find an adapted layer's class by its name, as ``pickle`` does: it is made late, since peft takes seconds."""
    if name.startswith("Adapted"):
        for kind in layer_kinds().values():
            if kind.__name__ == name:
                return kind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
