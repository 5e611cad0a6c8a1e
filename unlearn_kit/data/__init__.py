"""Data sets: loaders by name, and the one way samples are read."""

from .bundle import DataBundle
from .checks import check_dataset
from .copies import Duplicate, Duplicates, duplicates
from .expressions import Where, where
from .registry import LOADERS, load
from .relabel import with_ignore_index, without_class
from .tensors import TensorImages, in_order, iterate, labels_of, load_tensors, resolve, subset
from .weights import class_weights

__all__ = [
    "LOADERS",
    "DataBundle",
    "Duplicate",
    "Duplicates",
    "TensorImages",
    "Where",
    "check_dataset",
    "class_weights",
    "duplicates",
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
