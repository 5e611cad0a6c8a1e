"""A composition written down: a small recipe in, a model and a record of what was merged out."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..arguments import checked
from ..checkpoints import load_model
from ..data.tensors import in_order
from ..errors import check_choice, check_path_exists
from ..gradients import mean_squared_gradients
from ..hashing import hash_model
from ..safe_yaml import check_plain, parse_yaml, read_yaml
from ..tasks import UnlearnTask
from .batch_norm import needs_recalibration
from .merge import average, fisher_merge, interpolate, slerp
from .soup import greedy_soup
from .swap import swap_head
from .task_vectors import dare, neg_merge, task_arithmetic, ties


@dataclass(frozen=True)
class MergeMethod:
    """A row of ``METHODS``: the function, what a recipe's models are to it, and whether it needs data or a score."""

    function: Callable[..., Any]
    models: str = "all"  # "all": one argument; "two": the first two arguments
    base: str = "required"  # "required", "optional" or "none"
    needs: str = ""  # "data", "score" or nothing


METHODS: dict[str, MergeMethod] = {
    "average": MergeMethod(average, base="none"),
    "dare": MergeMethod(dare),
    "fisher_merge": MergeMethod(fisher_merge, base="none", needs="data"),
    "greedy_soup": MergeMethod(greedy_soup, base="none", needs="score"),
    "interpolate": MergeMethod(interpolate, models="two", base="none"),
    "neg_merge": MergeMethod(neg_merge),
    "slerp": MergeMethod(slerp, models="two", base="optional"),
    "swap_head": MergeMethod(swap_head, models="two", base="none"),
    "task_arithmetic": MergeMethod(task_arithmetic),
    "ties": MergeMethod(ties),
}
FROM_DATA = ("recalibrate", "finetune_on")  # in a recipe true or false: the data are given beside it
NOT_OPTIONS = ("models", "base", "fishers", "score", "a", "b", "body", "head")


@dataclass(frozen=True)
class Composition:
    """A composed model, and a record of plain values that says what went into it.

    ``record`` holds the method, its options, each input by name with its hash (and its own record, where
    it was composed itself), the hash of the result, whether its batch norm still needs recalibration, and versions.
    """

    model: nn.Module
    record: dict[str, Any]


@checked
def compose(
    recipe: Mapping[str, Any] | str | Path,
    *,
    models: Mapping[str, nn.Module] | None = None,
    build: nn.Module | Callable[[], nn.Module] | None = None,
    data: Any = None,
    score: Callable[[nn.Module], float] | None = None,
) -> Composition:
    """Merge models as a recipe says: ``{"method": "ties", "base": "original", "models": ["a", "b"], "density": 0.3}``.

    Args:
        recipe: a mapping, YAML text, or the path of a YAML file. ``method`` is one of ``METHODS``; ``models`` lists the
            inputs (of ``interpolate`` and ``slerp`` a and b, of ``swap_head`` body and head), ``base`` names one where
            the method has one. An input is a name in ``models=``, the path of a safetensors file, or a recipe itself.
            All other keys are options of the method; ``recalibrate: true`` and ``finetune_on: true`` use ``data``.
        models: by name.
        build: the architecture of models in files: a module, or a function that builds one. A path in a recipe file is
            relative to that file.
        data: retain data, or a task, of which ``retain`` is read.
        score: of ``greedy_soup``.

    Raises:
        ValueError: On an unknown key, method or option (naming the nearest), a missing input, data or score, and what
            the method refuses.
        FileNotFoundError: On a file.
        CheckpointError: On a file.
    """
    folder = Path(recipe).parent if isinstance(recipe, Path) else Path()
    return _Kitchen(dict(models or {}), build, data, score, folder).cook(_read(recipe))


@dataclass(frozen=True)
class _Kitchen:
    models: dict[str, nn.Module]
    build: nn.Module | Callable[[], nn.Module] | None
    data: Any
    score: Callable[[nn.Module], float] | None
    folder: Path

    def cook(self, recipe: Mapping[str, Any]) -> Composition:
        if "method" not in recipe:
            raise ValueError(f"expected recipe to have a key 'method', one of {list(METHODS)}, but got {list(recipe)}")
        name = check_choice("method", recipe["method"], METHODS)
        method = METHODS[name]
        parameters = inspect.signature(method.function).parameters
        allowed = [key for key in parameters if key not in NOT_OPTIONS]
        known = ["method", "models", *(["base"] if method.base != "none" else []), *allowed]
        for key in recipe:
            check_choice(f"every key of the {name} recipe", key, known)
        needed = {key for key in allowed if parameters[key].default is inspect.Parameter.empty} | {"models"}
        for key in sorted(needed | ({"base"} if method.base == "required" else set())):
            if key not in recipe:
                raise ValueError(f"expected the {name} recipe to have a key {key!r}, but got {list(recipe)}")
        listed = recipe["models"]
        if isinstance(listed, (str, Mapping)) or not isinstance(listed, Sequence) or not listed:
            raise ValueError(f"expected models in a recipe to be a list of inputs, but got {listed!r}")
        if method.models == "two" and len(listed) != 2:
            raise ValueError(f"expected models of the {name} recipe to be two, but got {len(listed)}")
        inputs = [self._input(entry) for entry in listed]
        base = self._input(recipe["base"]) if "base" in recipe else None
        options = {key: value for key, value in recipe.items() if key in allowed}
        called = options | self._from_data(name, options)
        if base is not None:
            called["base"] = base.model
        given = [made.model for made in inputs]
        if method.needs == "data":
            called["fishers"] = [self._fisher(model) for model in given]
        if method.needs == "score":
            if self.score is None:
                raise ValueError(f"expected score= with the {name} recipe, but got None")
            called["score"] = self.score
        found = method.function(*given, **called) if method.models == "two" else method.function(models=given, **called)
        model = found if isinstance(found, nn.Module) else found.model
        record = {
            "method": name,
            "options": options,
            "models": [made.record for made in inputs],
            **({} if base is None else {"base": base.record}),
            **({} if isinstance(found, nn.Module) else {"chosen": list(found.chosen)}),
            "hash": hash_model(model),
            "needs_recalibration": needs_recalibration(model),
            "versions": {"torch": torch.__version__, "unlearn-kit": importlib.metadata.version("unlearn-kit")},
        }
        return Composition(model, record)

    def _input(self, entry: Any) -> Composition:
        if isinstance(entry, Mapping):
            return self.cook(entry)
        if not isinstance(entry, str):
            raise TypeError(f"expected an input to be a name, a path or a recipe, but got {type(entry).__name__}")
        if entry in self.models:
            model = self.models[entry]
        elif entry.endswith(".safetensors"):
            if self.build is None:
                raise ValueError(f"expected build= with the file {entry!r}, but got None")
            like = self.build if isinstance(self.build, nn.Module) else self.build()
            model = load_model(like, check_path_exists("an input", self.folder / entry))
        else:
            check_choice("an input of the recipe", entry, self.models)
        return Composition(model, {"input": entry, "hash": hash_model(model)})

    def _from_data(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in FROM_DATA:
            if key not in options:
                continue
            if not isinstance(options[key], bool):
                raise TypeError(f"expected {key} in the {name} recipe to be true or false, but got {options[key]!r}")
            if options[key] and self.data is None:
                raise ValueError(f"expected data= with {key}: true, but got None")
            found[key] = self.data if options[key] else None
        return found

    def _fisher(self, model: nn.Module) -> dict[str, torch.Tensor]:
        if self.data is None:
            raise ValueError("expected data= with the fisher_merge recipe, but got None")
        retain = self.data.retain if isinstance(self.data, UnlearnTask) else self.data
        return mean_squared_gradients(model, in_order(retain))


def _read(recipe: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    source = str(recipe) if isinstance(recipe, Path) else "recipe"
    if isinstance(recipe, Path):
        recipe = read_yaml(recipe, "recipe")
    elif isinstance(recipe, str):
        recipe = parse_yaml(recipe, source)
    check_plain(recipe, source)
    if not isinstance(recipe, Mapping):
        raise ValueError(f"expected {source} to be a mapping, but got {type(recipe).__name__}: {recipe!r}")
    return recipe
