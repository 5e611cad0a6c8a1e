"""Adapted layers whose adapters act whether their parent calls them or reads their weight.

Several modules never call a layer that they hold: ``nn.MultiheadAttention`` and torchvision's Swin hand the layer's
weight to a function of their own, and ``nn.TransformerEncoderLayer`` hands the weights of all its layers to one fused
kernel in eval mode. What they read is then the sum of the weight and the adapters.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from peft.tuners.lora import Linear as _Layer
else:
    _Layer = object


class ActingWeight(_Layer):
    """The weight of an adapted layer, as its parent reads it; put before a class of peft's adapted layers."""

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
                update = self.get_delta_weight(name)
                channels = self.lora_dropout[name](update.new_ones(1, update.shape[1]))
                weight = weight + update * channels.reshape(1, -1, *(1 for _ in update.shape[2:]))
        return weight


@functools.cache
def layer_kinds() -> dict[type[nn.Module], type[nn.Module]]:
    """Return the kind of adapted layer for each kind of layer."""
    from peft.tuners import lora

    kinds = {nn.Linear: ("AdaptedLinear", lora.Linear), nn.Conv2d: ("AdaptedConv2d", lora.Conv2d)}
    return {kind: type(name, (ActingWeight, own), {"__module__": __name__}) for kind, (name, own) in kinds.items()}


def __getattr__(name: str) -> Any:
    """Find an adapted layer's class by its name, as ``pickle`` does: it is made late, since peft takes seconds."""
    if name.startswith("Adapted"):
        for kind in layer_kinds().values():
            if kind.__name__ == name:
                return kind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
