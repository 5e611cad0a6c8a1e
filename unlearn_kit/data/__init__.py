"""Data sets: loaders by name, and the one way samples are read."""

from .bundle import DataBundle
from .expressions import Where, where
from .registry import LOADERS, load
from .relabel import with_ignore_index, without_class
from .tensors import TensorImages, in_order, iterate, labels_of, load_tensors, resolve, subset

__all__ = [
    "LOADERS",
    "DataBundle",
    "TensorImages",
    "Where",
    "in_order",
    "iterate",
    "labels_of",
    "load",
    "load_tensors",
    "resolve",
    "subset",
    "where",
    "with_ignore_index",
    "without_class",
]
