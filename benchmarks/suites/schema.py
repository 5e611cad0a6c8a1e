"""What a suite may say. Everything is refused before anything runs, with the key's path and what was expected."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from unlearn_kit.data import LOADERS
from unlearn_kit.display import counted
from unlearn_kit.errors import check_choice, check_count
from unlearn_kit.hashing import hash_config
from unlearn_kit.models import MODELS

from ..setup.devices import check_device_name
from ..setup.methods import METHODS, Method, Variant, check_method, check_option, value_of
from ..setup.recipes import RECIPES
from ..setup.scenarios import Scenario

MAX_RUNS = 10_000  # of one suite
# Options of methods that a suite cannot give.
NOT_OF_A_FILE = (
    "seed", "device", "callbacks", "accelerator", "validation", "erase_to", "retain_target", "references", "stored",
)  # fmt: skip
MAX_REFERENCES = 10
MAX_NAME = 100  # characters; it becomes a part of the names of files


class Strict(BaseModel):
    """A mapping in which every key is known; the error on another names the nearest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                check_choice("every key", key, cls.model_fields)
        return values


def _several(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    known = Counter(hash_config(value.model_dump() if isinstance(value, BaseModel) else value) for value in values)
    if len(known) < len(values):
        raise ValueError(f"expected values that differ, but got {list(values)}")
    return values


def _no_truth(value: Any) -> Any:
    """Refuse true and false where a number belongs: Python counts them among the numbers."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, but got {value}")
    return value


def _seeds(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(check_count("a seed", value, low=0) for value in _distinct(values))


def _data_name(name: str) -> str:
    check_choice("a data set", name.partition(":")[0], LOADERS)
    return name


def _model_name(name: str) -> str:
    return check_choice("a model", name, MODELS)


# Numbers of a file: finite, never true or false.
Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=1)]
Finite = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]
Seeds = Annotated[
    tuple[Annotated[int, BeforeValidator(_no_truth)], ...],
    BeforeValidator(_several),
    AfterValidator(_seeds),
    Field(min_length=1),
]


class SeedLists(Strict):
    """Seeds of the three stages; every combination is run.

    The training seed also draws the forget set, and what an unlearning run draws follows from both: runs of one
    unlearning seed are independent draws for every training.
    """

    training: Seeds = (0,)
    """Of originals and references, and of what is to be forgotten."""
    unlearning: Seeds = (0,)
    """Of revisions."""
    evaluation: Seeds = (0,)
    """Of what scores draw, such as the samples of an attack."""


class TrainingRecipe(Strict):
    """How originals and references are trained; None stands for the data set's own recipe."""

    epochs: Count | None = None
    """Passes over the training data."""
    batch_size: Count | None = None
    """Images a step."""
    lr: Annotated[Finite, Field(gt=0)] | None = None
    """The learning rate."""
    optimizer: Annotated[
        str, AfterValidator(lambda name: check_choice("optimizer", name, ("sgd", "adam", "adamw")))
    ] | (None) = None
    """"sgd", "adam" or "adamw"."""
    weight_decay: Annotated[Finite, Field(ge=0)] | None = None
    """Of the optimiser."""


class Data(Strict):
    """A data set and its loader's options; a name alone is enough."""

    name: Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_data_name)]
    """Of ``unlearn-kit list``; of several sets in one form with the set, ``medmnist:dermamnist``."""
    options: dict[str, Any] = {}
    """Arguments of the loader, such as ``root`` or ``train_size``."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _loader_takes_them(self) -> Self:
        import importlib
        import inspect

        module = LOADERS[self.name.partition(":")[0]]
        known = [n for n in inspect.signature(_loader(importlib, module)).parameters if n != "member"]
        for option, value in self.options.items():
            check_choice(f"every option of {self.name!r}", option, known)
            if not all(one is None or isinstance(one, (str, int, float)) for one in _several(value)):
                raise ValueError(
                    f"expected option {option!r} of {self.name!r} to be text, a number, true, false, null or a list "
                    f"of these, but got {value!r}"
                )
        return self


def _loader(importlib: Any, module: str) -> Any:
    return importlib.import_module(f"unlearn_kit.data.{module}").load


class MethodRow(Strict):
    """A method: ``NAME``, ``NAME:PRESET``, ``NAME:option=value``, or a name with options and a grid of them.

    Every combination of the grid's values is run. A grid over one option is a tradeoff curve, and that option its knob;
    of several, ``knob`` may name one.
    """

    name: Annotated[str, AfterValidator(check_method)]
    """Of ``unlearn-kit list``."""
    options: dict[str, Any] = {}
    """Its options; what is not said keeps its default."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Options with several values each."""
    knob: str | None = None
    """The option of the grid along which the runs are a tradeoff curve."""

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            method = Method(value)
            return {"name": method.name, "options": method.options}
        return value

    @model_validator(mode="after")
    def _method_takes_them(self) -> Self:
        for option in (*self.options, *self.grid):
            check_option(self.name, option)
            if option in NOT_OF_A_FILE:
                raise ValueError(f"expected options without {option!r}, which the runner gives, or no file can")
        both = [option for option in self.options if option in self.grid]
        if both:
            raise ValueError(f"expected each option in options or in grid, but got {both} in both")
        if self.knob is not None:
            check_choice("knob", self.knob, self.grid)
        list(self.variants())
        return self

    def variants(self) -> Iterator[Variant]:
        """Return one variant a combination of the grid's values."""
        for values in itertools.product(*self.grid.values()):
            options = {**self.options, **dict(zip(self.grid, values, strict=True))}
            yield Variant(self.name, {k: value_of(v) if isinstance(v, str) else v for k, v in options.items()})

    @property
    def tradeoff_knob(self) -> str | None:
        """Return the option along which the variants are a curve; None where they are none."""
        return self.knob if self.knob is not None else next(iter(self.grid)) if len(self.grid) == 1 else None


def _every_method(value: Any) -> Any:
    return list(METHODS) if value == "all" else value


def _scenario(value: Any) -> Scenario:
    if isinstance(value, Scenario):
        return value
    rules = [value] if isinstance(value, str) else value
    if not isinstance(rules, (list, tuple)) or not all(isinstance(rule, str) for rule in rules):
        raise ValueError(f"expected a rule, or a list of rules one after another, but got {value!r}")
    return Scenario(tuple(rules))


class Block(Strict):
    """Data sets x forget scenarios x models x methods; ``models`` is the recipe's own where none is named."""

    data: Annotated[tuple[Data, ...], BeforeValidator(_several), AfterValidator(_distinct), Field(min_length=1)]
    """Data sets."""
    forget: Annotated[
        tuple[Annotated[Scenario, BeforeValidator(_scenario)], ...],
        BeforeValidator(_several),
        AfterValidator(_distinct),
        Field(min_length=1),
    ]
    """What is to be forgotten: a rule, or a list of rules one after the other."""
    models: Annotated[
        tuple[Annotated[str, AfterValidator(_model_name)], ...], BeforeValidator(_several), AfterValidator(_distinct)
    ] = ()
    """Networks; that of the data set's recipe where none is named."""
    training: TrainingRecipe = TrainingRecipe()
    """What differs from the data set's recipe."""
    methods: Annotated[tuple[MethodRow, ...], BeforeValidator(_every_method), Field(min_length=1)]
    """What is tried; ``all`` is every method that needs no reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        texts = [variant.text for row in self.methods for variant in row.variants()]
        twice = sorted(text for text, count in Counter(texts).items() if count > 1)
        if twice:
            raise ValueError(f"expected methods that differ, but got {twice} more than once")
        for data in self.data:
            if data.name not in RECIPES:
                missing = [key for key in ("epochs", "batch_size", "lr") if getattr(self.training, key) is None]
                if missing or not self.models:
                    raise ValueError(
                        f"expected models and training's epochs, batch_size and lr for {data.name!r}, which has no "
                        f"recipe, but got models {list(self.models)} and no {missing}"
                    )
        return self


class Suite(Strict):
    """A matrix of runs.

    ``references`` are retrained for every training seed: methods are judged by the first, and the others are rows by
    the same figures. How far those are from the first is what a method's distance can resolve.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=MAX_NAME)]
    """Of the suite, and of the folder it is run into."""
    about: str = ""
    """What it is for, in a sentence; it stands on the report."""
    seeds: SeedLists = SeedLists()
    """Every combination of them is run."""
    device: Annotated[str, AfterValidator(check_device_name)] = "cpu"
    """Where networks are trained, such as ``cpu`` or ``cuda``."""
    learning_curve: bool = False
    """Whether scores are taken while methods train, too."""
    references: Annotated[Count, Field(le=MAX_REFERENCES)] = 1
    """Models retrained for each training seed."""
    matrix: Annotated[tuple[Block, ...], BeforeValidator(_several), Field(min_length=1)]
    """What is run: one block, or several."""

    def __repr__(self) -> str:
        """Return the name, and how many revisions of what it asks for."""
        revisions = (
            len(self.seeds.training)
            * len(self.seeds.unlearning)
            * sum(
                len(block.data) * len(block.forget) * max(1, len(block.models)) * len(list(row.variants()))
                for block in self.matrix
                for row in block.methods
            )
        )
        data = dict.fromkeys(one.name for block in self.matrix for one in block.data)
        methods = dict.fromkeys(row.name for block in self.matrix for row in block.methods)
        seeds = ", ".join(counted(len(held), f"{stage} seed") for stage, held in self.seeds)
        return (
            f"<Suite {self.name}: {counted(revisions, 'revision')} on {', '.join(data)}; "
            f"{counted(len(methods), 'method')}: {', '.join(methods)}; {seeds}; on {self.device}>"
        )


def check_combinations(values: Any, source: str) -> None:
    """Refuse a suite of too many runs by counting them, before any of them is made; what is no suite passes.

    Raises:
        ValueError: On more runs than ``MAX_RUNS``, naming the source and the key that makes them so many.
    """
    suite = _mapping(values)
    seeds = _mapping(suite.get("seeds"))
    each = math.prod([len(_several(seeds.get(stage, 0))) for stage in SeedLists.model_fields])
    total = 0
    for place, block in enumerate(_several(suite.get("matrix", ()))):
        block = _mapping(block)
        here = each * math.prod([len(_several(block.get(key, ""))) for key in ("data", "forget", "models")])
        for number, row in enumerate(_several(block.get("methods", ()))):
            total += here * math.prod(
                [len(_several(choices)) for choices in _mapping(_mapping(row).get("grid")).values()]
            )
            if total > MAX_RUNS:
                raise ValueError(
                    f"{source}: matrix.{place}.methods.{number}: expected at most {MAX_RUNS} runs of one suite, "
                    f"but got {total:,} and more"
                )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
