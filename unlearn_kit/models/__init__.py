"""Reference networks, on raw pixels in [0, 1] and with a declared head; normalisation; fresh weights."""

from ..heads import declare_head, head_name, head_parameters
from ..logits import with_output
from ..stages import parameters_of, stages
from .all_cnn import all_cnn
from .mlp import mlp
from .normalization import Normalize, with_normalization
from .registry import MODELS, ModelEntry, build
from .reset import fresh_copy, reinitialize_
from .resnet import resnet
from .small_cnn import small_cnn
from .unet import unet

__all__ = [
    "MODELS",
    "ModelEntry",
    "Normalize",
    "all_cnn",
    "build",
    "declare_head",
    "fresh_copy",
    "head_name",
    "head_parameters",
    "mlp",
    "parameters_of",
    "reinitialize_",
    "resnet",
    "small_cnn",
    "stages",
    "unet",
    "with_normalization",
    "with_output",
]
