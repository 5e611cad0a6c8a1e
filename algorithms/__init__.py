"""The methods: one file each, every one called as ``algorithm(model, task, *, seed=0, device=None, ...)``."""

from .boundary_shrink import boundary_shrink
from .finetune import finetune
from .perturbed_sign import perturbed_sign
from .retrain import retrain

__all__ = ["boundary_shrink", "finetune", "perturbed_sign", "retrain"]
