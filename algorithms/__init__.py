"""The methods: one file each, every one called as ``algorithm(model, task, *, seed=0, device=None, ...)``."""

from .amun import amun
from .augmentation_matching import augmentation_matching
from .bad_teacher import bad_teacher
from .boundary_expand import boundary_expand
from .boundary_shrink import boundary_shrink
from .damp import damp
from .delete import delete
from .erase_to_retain import erase_to_retain
from .finetune import finetune
from .fisher_forgetting import fisher_forgetting
from .hamu import hamu
from .influence import influence
from .jit import jit
from .l1_sparse import l1_sparse
from .last_layers import catastrophic_forget_k, exact_unlearn_k
from .lotus import lotus
from .masked_small_gradient import masked_small_gradient
from .mean_feature_head import mean_feature_head
from .munba import munba
from .neg_grad import neg_grad, neg_grad_plus
from .negmerge import negmerge
from .oracle_matching import oracle_matching
from .perturbed_sign import perturbed_sign
from .quantile_matching import quantile_matching
from .random_label import random_label
from .regun import regun
from .reload import reload
from .retrain import retrain
from .rurk import rurk
from .salun import salun
from .scrub import scrub
from .sfron import sfron
from .ssd import lfssd, ssd
from .ugradsl import ugradsl
from .unsir import unsir

__all__ = [
    "amun",
    "augmentation_matching",
    "bad_teacher",
    "boundary_expand",
    "boundary_shrink",
    "catastrophic_forget_k",
    "damp",
    "delete",
    "erase_to_retain",
    "exact_unlearn_k",
    "finetune",
    "fisher_forgetting",
    "hamu",
    "influence",
    "jit",
    "l1_sparse",
    "lfssd",
    "lotus",
    "masked_small_gradient",
    "mean_feature_head",
    "munba",
    "neg_grad",
    "neg_grad_plus",
    "negmerge",
    "oracle_matching",
    "perturbed_sign",
    "quantile_matching",
    "random_label",
    "regun",
    "reload",
    "retrain",
    "rurk",
    "salun",
    "scrub",
    "sfron",
    "ssd",
    "ugradsl",
    "unsir",
]
