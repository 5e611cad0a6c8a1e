"""Low-rank adapters: small, reversible revisions beside frozen weights (on ``peft``).

An adapted model is a ``peft.PeftModel`` around a copy of the original. ``dW = (alpha / rank) B A`` is added to each
chosen convolution or linear layer; B starts at zero, so a fresh adapter changes nothing: the outputs are, bit for bit,
those of the original with its weights frozen. (torch multiplies inputs that are not contiguous in another order where
a weight takes gradients, also under ``no_grad``; the original's own outputs may be a rounding away.) Switched off, the
original function returns bit for bit, provided that no buffer moved: train with batch norm frozen, where everything
that keeps state in training mode rests.

Attached means active: an adapter acts whether the layer is called or its weight is read (``layers``), as its merged
weight will; a layer where it could not has none (``skipped``). The joint input projection of
``nn.MultiheadAttention`` is a parameter, no layer, and is not adapted. torch takes its fused attention where no
gradients are wanted, which rounds otherwise: compare outputs without gradients.

Source: LoRA, arXiv 2106.09685; for unlearning, arXiv 2511.16574.
"""

from .attaching import attach
from .choosing import Where, select, skipped
from .files import load, save
from .layers import ADAPTABLE
from .moving import gather
from .structure import adapter_names, base_state, count_trainable
from .switching import is_on, merge, negate, only, plain, scale, switch_, switched_off

__all__ = [
    "ADAPTABLE",
    "Where",
    "adapter_names",
    "attach",
    "base_state",
    "count_trainable",
    "gather",
    "is_on",
    "load",
    "merge",
    "negate",
    "only",
    "plain",
    "save",
    "scale",
    "select",
    "skipped",
    "switch_",
    "switched_off",
]
