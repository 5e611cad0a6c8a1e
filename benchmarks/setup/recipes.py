"""How the originals are made: one row a data set. A new data set is one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unlearn_kit import UnlearnTask
from unlearn_kit.data import DataBundle
from unlearn_kit.errors import check_choice


@dataclass(frozen=True)
class Recipe:
    """The network and the training that make an original worth revising, and its reference.

    Attributes:
        kind: "classification" or "segmentation".
        model: a name of ``unlearn_kit.models.MODELS``.
        epochs, batch_size, lr, optimizer, weight_decay: of ``unlearn_kit.engine.train``, for original and reference
            alike; the loss is cross-entropy for classes, Dice + BCE for masks.
        forget: what is forgotten when nothing is said (see :data:`RULES`).
        methods: the algorithms that are shown when none are named.
    """

    kind: Literal["classification", "segmentation"]
    model: str
    epochs: int
    batch_size: int
    lr: float
    forget: str
    methods: tuple[str, ...]
    optimizer: str = "sgd"
    weight_decay: float = 5e-4


CLASSIFIERS = ("finetune", "boundary_shrink", "perturbed_sign")
# The last two of the second seed method: the released recipe at a rate that moves a small network, and the regime its
# paper reports, far below what a model that never saw the data would score.
SEGMENTERS = (
    "finetune",
    "perturbed_sign",
    "erase_to_retain",
    "erase_to_retain:released",
    "erase_to_retain:released:lr=0.001",
    "erase_to_retain:stop_at=0.6",
)

RECIPES: dict[str, Recipe] = {
    "digits": Recipe("classification", "small-cnn", 30, 128, 0.05, "class:0", CLASSIFIERS),
    "fashion-mnist": Recipe("classification", "small-cnn", 6, 128, 0.05, "class:0", CLASSIFIERS),
    "simulated-scanners": Recipe("classification", "small-cnn", 6, 128, 0.05, "where:scanner:B", CLASSIFIERS),
    "synthetic-lesions": Recipe("segmentation", "unet", 60, 16, 2e-3, "random:0.1", SEGMENTERS, "adam", 0.0),
    "mni-slices": Recipe("segmentation", "unet", 40, 16, 2e-3, "where:plane:sagittal", SEGMENTERS, "adam", 0.0),
}


def _shared(bundle: DataBundle) -> dict[str, Any]:
    return {"num_classes": bundle.num_classes, "validation": bundle.validation}


def _class(bundle: DataBundle, _seed: int, label: str) -> UnlearnTask:
    return UnlearnTask.forget_class(bundle.train, bundle.test, int(label), **_shared(bundle))


def _fraction(bundle: DataBundle, seed: int, label: str, share: str) -> UnlearnTask:
    return UnlearnTask.forget_class(
        bundle.train, bundle.test, int(label), fraction=float(share), seed=seed, **_shared(bundle)
    )


def _random(bundle: DataBundle, seed: int, share: str) -> UnlearnTask:
    return UnlearnTask.forget_random(bundle.train, bundle.test, float(share), seed=seed, **_shared(bundle))


def _where(bundle: DataBundle, _seed: int, column: str, value: str) -> UnlearnTask:
    if bundle.train_metadata is None or bundle.test_metadata is None:
        raise ValueError(f"expected a data set with metadata for forget='where:...', but {bundle.name!r} has none")
    check_choice(f"the column of {bundle.name!r}", column, [str(name) for name in bundle.train_metadata.columns])
    return UnlearnTask.forget_where(
        bundle.train,
        bundle.test,
        bundle.train_metadata,
        bundle.test_metadata,
        lambda table: (table[column].astype(str) == value).to_numpy(bool),
        validation_metadata=bundle.validation_metadata,
        **_shared(bundle),
    )


# form -> (how it is written, an example, the constructor). The parts after the form are the constructor's arguments.
RULES: Mapping[str, tuple[str, str, Callable[..., UnlearnTask]]] = {
    "class": ("class:LABEL", "class:0", _class),
    "fraction": ("fraction:LABEL:SHARE", "fraction:0:0.5", _fraction),
    "random": ("random:SHARE", "random:0.1", _random),
    "where": ("where:COLUMN:VALUE", "where:device:B", _where),
}


@dataclass(frozen=True)
class ForgetRule:
    """A rule such as ``class:0``, ``fraction:0:0.5``, ``random:0.1`` or ``where:device:B``.

    Its text is always the same for the same numbers, however they were written.

    Raises:
        ValueError: When it is not of one of these forms.
    """

    text: str

    def __post_init__(self) -> None:
        form, *parts = self.text.split(":")
        wanted = RULES[form][0].split(":")[1:] if form in RULES else None
        read: Mapping[str, Callable[[str], Any]] = {"LABEL": int, "SHARE": float, "COLUMN": str, "VALUE": str}
        try:
            if wanted is None or len(wanted) != len(parts):
                raise ValueError
            values = [str(read[name](part)) for name, part in zip(wanted, parts, strict=True)]
        except ValueError:
            forms = ", ".join(f"{written} (as in {example})" for written, example, _ in RULES.values())
            raise ValueError(f"expected forget to be one of {forms}, but got {self.text!r}") from None
        object.__setattr__(self, "text", ":".join([form, *values]))

    def task(self, bundle: DataBundle, seed: int) -> UnlearnTask:
        """Return the task this rule makes of a data set.

        Raises:
            ValueError: When the data set does not have the class, share or column.
            TypeError: When the class or share is no number.
        """
        form, *parts = self.text.split(":")
        return RULES[form][2](bundle, seed, *parts)


@dataclass(frozen=True)
class Blueprint:
    """A network that can be built again with fresh weights, drawn from the current random state."""

    model: str
    num_classes: int
    channels: int

    def __call__(self) -> Any:
        """Build it."""
        from unlearn_kit.models import build

        return build(self.model, self.num_classes, self.channels)
