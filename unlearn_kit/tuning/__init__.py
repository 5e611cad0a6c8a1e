"""Tuning: the weights of a tradeoff, by search or by gradients through the whole run."""

from .hyper import Fast, Reached, Unrolled, expected_accuracy, newton, scale_adapters, unroll, weighted
from .search import Trial, Tuned, split_off, tune_tradeoff

__all__ = [
    "Fast",
    "Reached",
    "Trial",
    "Tuned",
    "Unrolled",
    "expected_accuracy",
    "newton",
    "scale_adapters",
    "split_off",
    "tune_tradeoff",
    "unroll",
    "weighted",
]
