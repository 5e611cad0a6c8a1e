"""Does what was forgotten come back when the weights are rounded?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import check_count
from ..modules import blank_copy, check_model
from ..seeding import standardized
from ..tasks import UnlearnTask, check_task
from .evaluate import split_score
from .predict import Reading

TRANSPOSED = nn.modules.conv._ConvTransposeNd


@dataclass(frozen=True)
class QuantizedScores:
    """Scores on the forget and retain training data, in [0, 1], at so many bits a weight; bits None: as they are."""

    bits: int | None
    forget: float | None
    retain: float | None


@checked
@standardized
def quantize_attack(
    model: nn.Module, task: UnlearnTask, *, bits: Sequence[int] = (8, 4), **reading: Unpack[Reading]
) -> tuple[QuantizedScores, ...]:
    """Forget and retain scores (accuracy, for masks IoU) after rounding the weights, the unrounded ones first.

    Small changes of many weights, by which some methods forget, can be rounded away: the forget score then rises
    toward the original's. Ideal: the reference's scores at the same bits. Weights are rounded as :func:`quantized`
    says; activations are not.

    Args:
        model: the model to audit; untouched. Adapters are rounded beside the weights they change: merge them first to
            ask about a merged model.
        task: its forget and retain data are scored; None where one is empty.
        bits: each at least 2.
        **reading: see :class:`.predict.Reading`.

    Raises:
        TypeError: On bits that are no int of at least 2, on a model with weights that are not finite.
        ValueError: On bits that are no int of at least 2, on a model with weights that are not finite.

    Source: arXiv 2410.16454.
    """
    check_task(task)
    model = check_model(model)
    if not isinstance(bits, Sequence):
        raise TypeError(f"expected bits to be a list of ints, but got {type(bits).__name__}")
    widths = [check_count("bits", width, low=2) for width in bits]

    def scores(width: int | None) -> QuantizedScores:
        rounded = model if width is None else quantized(model, width)
        forget, retain = (split_score(rounded, task, split, **reading) for split in ("forget", "retain"))
        return QuantizedScores(width, forget, retain)

    return tuple(scores(width) for width in (None, *widths))


def quantized(model: nn.Module, bits: int) -> nn.Module:
    """Return a copy whose weights are rounded to ``2**bits - 1`` levels, held in the type they had.

    Symmetric, one scale an output channel: ``round(w / s) s`` with ``s = max |w| / (2**(bits - 1) - 1)``. Every
    parameter of two dimensions or more is rounded; biases, and the scales and statistics of norms, are not.

    Raises:
        TypeError: When bits is no int of at least 2.
        ValueError: When bits is no int of at least 2.
    """
    check_count("bits", bits, low=2)
    copied, done = blank_copy(model), set[int]()
    with torch.no_grad():
        for module in copied.modules():
            for parameter in module.parameters(recurse=False):
                # A weight that two modules share is rounded once.
                if parameter.dim() >= 2 and parameter.is_floating_point() and id(parameter) not in done:
                    parameter.copy_(_rounded(parameter, bits, channel=1 if isinstance(module, TRANSPOSED) else 0))
                    done.add(id(parameter))
    return copied


def _rounded(weight: Tensor, bits: int, channel: int) -> Tensor:
    levels = 2 ** (bits - 1) - 1
    w = weight.detach().cpu().double()
    others = [axis for axis in range(w.dim()) if axis != channel]
    scale = w.abs().amax(dim=others, keepdim=True) / levels
    return torch.where(scale > 0, (w / scale).round() * scale, 0.0).to(weight)
