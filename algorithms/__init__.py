"""The methods: one file each, every one called as ``algorithm(model, task, *, seed=0, device=None, ...)``."""

from .bad_teacher import bad_teacher
from .boundary_shrink import boundary_shrink
from .delete import delete
from .erase_to_retain import erase_to_retain
from .finetune import finetune
from .l1_sparse import l1_sparse
from .last_layers import catastrophic_forget_k, exact_unlearn_k
from .neg_grad import neg_grad, neg_grad_plus
from .perturbed_sign import perturbed_sign
from .random_label import random_label
from .retrain import retrain
from .scrub import scrub

__all__ = [
    "bad_teacher",
    "boundary_shrink",
    "catastrophic_forget_k",
    "delete",
    "erase_to_retain",
    "exact_unlearn_k",
    "finetune",
    "l1_sparse",
    "neg_grad",
    "neg_grad_plus",
    "perturbed_sign",
    "random_label",
    "retrain",
    "scrub",
]
