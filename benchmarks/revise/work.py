"""From a request to a task and a model, and on to a revision or to a look at what it would forget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import algorithms
from unlearn_kit import UnlearnTask
from unlearn_kit.data import DataBundle, where
from unlearn_kit.deployed import Deployed, Revision, deployed, preflight, preview, revise
from unlearn_kit.deployed.reading import read_once
from unlearn_kit.errors import check_choice
from unlearn_kit.files import write_text

from ..setup.methods import as_options, known_options
from .progress import RevisionProgress, TimeEstimate, rehearse
from .request import RevisionRequest


@dataclass(frozen=True)
class Prepared:
    """A request whose data, model and task are there.

    Attributes:
        request: The request.
        bundle: Its data.
        serving: Its model.
        task: What is to be forgotten.
        notes: What is to be known of the selection, in words.
        reading: How the files are read, in words.
    """

    request: RevisionRequest
    bundle: DataBundle
    serving: Deployed
    task: UnlearnTask
    notes: tuple[str, ...]
    reading: str | None = None

    @property
    def words(self) -> list[str]:
        """Return how model and data are read, for people."""
        return [*self.serving.words, *([] if self.reading is None else [self.reading])]


def prepare(request: RevisionRequest) -> Prepared:
    """Read the data and the model, and select what is to be forgotten.

    Raises:
        ValueError: On what does not fit, naming it; on an expression that selects nothing or everything.
        DataNotFoundError: When there are no images.
        CheckpointError: When the weights do not fit the model.
    """
    bundle = request.data.load()
    task, notes = _select(request, bundle)
    model = request.model
    serving = deployed(
        model.source,
        model.weights,
        bundle,
        options=model.options,
        key=model.key,
        mean=model.mean,
        std=model.std,
        normalize=model.normalize,
    )
    task, reading = read_once(task)
    copies = [f"the same picture twice: {line}" for line in str(task.duplicates()).splitlines()]
    return Prepared(request, bundle, serving, task, (*notes, *copies), reading)


def _select(request: RevisionRequest, bundle: DataBundle) -> tuple[UnlearnTask, tuple[str, ...]]:
    if request.forget_class is not None:
        name = check_choice("forget_class", request.forget_class, bundle.class_names)
        label = bundle.class_names.index(name)
        task = UnlearnTask.forget_class(
            bundle.train, bundle.test, label, num_classes=bundle.num_classes, validation=bundle.validation
        )
        return task, (f"class {label} is {name!r}",)
    chosen = where(request.forget or "")
    if bundle.train_metadata is None or bundle.test_metadata is None:
        raise ValueError(
            f"expected a table of metadata beside the images in {str(request.data.root)!r} for forget, but there is "
            "none; forget_class needs none"
        )
    task = UnlearnTask.forget_where(
        bundle.train,
        bundle.test,
        bundle.train_metadata,
        bundle.test_metadata,
        chosen,
        num_classes=bundle.num_classes,
        validation=bundle.validation,
        validation_metadata=bundle.validation_metadata,
    )
    left = chosen.undecided(bundle.train_metadata)
    if not left:
        return task, ()
    return task, (f"{left} training images are not forgotten since a value that the request asks for is missing there",)


def look(prepared: Prepared) -> tuple[Path, list[str]]:
    """Write the page of what would be forgotten, and return its path and what is suspicious."""
    folder = prepared.request.out
    folder.parent.mkdir(parents=True, exist_ok=True)
    target = folder.with_name(f"{folder.name}-preview.html")
    warnings = [*prepared.notes, *preflight(prepared.serving.model, prepared.task, seed=prepared.request.seed)]
    write_text(preview(prepared.task, prepared.words, warnings), target)
    return target, warnings


def estimate(prepared: Prepared) -> TimeEstimate | None:
    """Return what the training would take, by a few steps of it; None where the method trains nothing."""
    request, method = prepared.request, prepared.request.chosen()
    if "callbacks" not in known_options(method.name):
        return None
    return rehearse(
        getattr(algorithms, method.name),
        prepared.serving.model,
        prepared.task,
        seed=request.seed,
        device=request.device,
        **as_options(method.options),
    )


def work(prepared: Prepared, estimated: Callable[[TimeEstimate], None] = lambda _: None) -> Revision:
    """Revise the model and write the folder; see :func:`unlearn_kit.deployed.revise`.

    Args:
        prepared: What is revised.
        estimated: Called with what the training will take, after its first steps.
    """
    request = prepared.request
    method = request.chosen()
    function: Any = getattr(algorithms, method.name)
    watched = "callbacks" in known_options(method.name)
    watching = {"callbacks": [RevisionProgress(method.text, estimated)]} if watched else {}
    reference = None if request.reference is None else prepared.serving.with_weights(request.reference)
    return revise(
        prepared.serving,
        prepared.task,
        function,
        out=request.out,
        form=request.form,
        reference=reference,
        seed=request.seed,
        device=request.device,
        options=as_options(method.options),
        watching=watching,
        notes=prepared.notes,
        beside={"revision.yaml": yaml_of(request)},
    )


def yaml_of(request: RevisionRequest) -> str:
    """Return the request as the YAML that makes it again."""
    values = request.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
