"""What a demo is asked to do, refused before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_kit import losses as L
from unlearn_kit.errors import check_choice, check_count
from unlearn_kit.models import MODELS

from ..setup.devices import check_device
from ..setup.methods import METHODS, Method
from ..setup.recipes import RECIPES, ForgetRule, Recipe


@dataclass(frozen=True)
class DemoConfig:
    """What a demo does; None stands for the data set's own recipe.

    Attributes:
        data: a name of :data:`.recipes.RECIPES`.
        out: the folder that is written (None: ``out/demo-DATA``).
        seed: of everything.
        forget: a rule, see :class:`.recipes.ForgetRule`.
        train_size: training images to keep.
        model, epochs: of the original and the reference.
        methods: names with options, see :class:`.attempts.Method`; ``everything`` is all of them by name.
        curves: whether the tradeoff curves of ``perturbed_sign`` are run.
        device: where models are trained.
        root, download: where the data are, and whether they may be fetched.
        progress: whether progress bars are shown on standard error.

    Raises:
        ValueError: Naming the option.
        TypeError: Naming the option.
    """

    data: str = "digits"
    out: Path | None = None
    seed: int = 0
    forget: str | None = None
    train_size: int | None = None
    model: str | None = None
    epochs: int | None = None
    methods: tuple[str, ...] | None = None
    everything: bool = False
    curves: bool = True
    device: str = "cpu"
    root: Path | None = None
    download: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        check_choice("data", self.data, RECIPES)
        check_count("seed", self.seed, low=0)
        if self.model is not None:
            check_choice("model", self.model, [n for n, entry in MODELS.items() if entry.task == self.recipe.kind])
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        if self.everything and self.methods is not None:
            raise ValueError(f"expected either all methods or named ones, but got both: {list(self.methods)}")
        if len(set(self.chosen)) < len(self.chosen):
            raise ValueError(f"expected methods to differ, but got {[method.text for method in self.chosen]}")
        check_device(self.device)
        _ = self.rule

    @property
    def recipe(self) -> Recipe:
        """The row of the data set."""
        return RECIPES[self.data]

    @property
    def chosen(self) -> list[Method]:
        """The methods to run."""
        named = self.methods if self.methods is not None else self.recipe.methods
        return [Method(text) for text in (METHODS if self.everything else named)]

    @property
    def rule(self) -> ForgetRule:
        """What is forgotten."""
        return ForgetRule(self.forget if self.forget is not None else self.recipe.forget)

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out if self.out is not None else Path("out") / f"demo-{self.data}"

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.model if self.model is not None else self.recipe.model

    @property
    def training(self) -> dict[str, Any]:
        """How the original and the reference are trained."""
        epochs = self.epochs if self.epochs is not None else self.recipe.epochs
        return {
            "epochs": epochs,
            "batch_size": self.recipe.batch_size,
            "lr": self.recipe.lr,
            "optimizer": self.recipe.optimizer,
            "weight_decay": self.recipe.weight_decay,
        }

    def loss(self, stream: str) -> L.Term:
        """Return what the original and the reference minimise on ``stream``."""
        return L.dice_bce(on=stream) if self.recipe.kind == "segmentation" else L.cross_entropy(on=stream)

    @property
    def data_options(self) -> dict[str, Any]:
        """What is passed on to the loader."""
        size = {} if self.train_size is None else {"train_size": self.train_size}
        return {**size, "download": True} if self.download else size

    def shown(self, text: str) -> str | None:
        """Return ``text`` where progress is shown, else None."""
        return text if self.progress else None
