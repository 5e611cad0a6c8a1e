"""From a request to a task and a model, and on to a revision or to a look at what it would forget."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

import algorithms
from unlearn_kit import UnlearnTask
from unlearn_kit.data import DataBundle, where
from unlearn_kit.data.sample_files import files_of
from unlearn_kit.deployed import Deployed, Revision, deployed, preflight, preview, revise
from unlearn_kit.deployed.reading import read_once
from unlearn_kit.deployed.revision import Later
from unlearn_kit.errors import DataWarning, check_choice
from unlearn_kit.evidence.measure import SPLITS
from unlearn_kit.files import write_text

from ..setup.methods import as_options, known_options
from .progress import RevisionProgress, TimeEstimate, rehearse
from .reference import Retraining, read_reference, seconds_of, small_verdicts, whole_reference
from .request import RevisionRequest

REQUEST = "revision.yaml"


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # they are told with the others, as notes
        bundle = request.data.load()
        task, notes = _select(request, bundle)
    serving = deployed_of(request, bundle)
    task, reading = read_once(task)
    return Prepared(request, bundle, serving, task, (*bundle.notes, *notes), reading)


def deployed_of(request: RevisionRequest, bundle: DataBundle) -> Deployed:
    """Read the model of a request.

    Raises:
        CheckpointError: When the weights do not fit it.
    """
    model = request.model
    return deployed(
        model.source,
        model.weights,
        bundle,
        options=model.options,
        key=model.key,
        mean=model.mean,
        std=model.std,
        normalize=model.normalize,
    )


def _select(request: RevisionRequest, bundle: DataBundle) -> tuple[UnlearnTask, tuple[str, ...]]:
    if request.forget_class is not None:
        name = check_choice("forget_class", request.forget_class, bundle.class_names)
        label = bundle.class_names.index(name)
        task = UnlearnTask.forget_class(
            bundle.train, bundle.test, label, num_classes=bundle.num_classes, validation=bundle.validation
        )
        return task, (f"{'finding' if bundle.task == 'multilabel' else 'class'} {label} is {name!r}",)
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
    return task, ()


def look(prepared: Prepared) -> tuple[Path, list[str]]:
    """Write the page of what would be forgotten, and return its path and what is suspicious."""
    folder = prepared.request.out
    folder.parent.mkdir(parents=True, exist_ok=True)
    target = folder.with_name(f"{folder.name}-preview.html")
    warnings = [*prepared.notes, *preflight(prepared.serving.model, prepared.task, seed=prepared.request.seed)]
    write_text(preview(prepared.task, prepared.words, warnings, class_names=prepared.bundle.class_names), target)
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


def work(
    prepared: Prepared,
    estimated: Callable[[TimeEstimate], object] = lambda _: None,
    say: Callable[[str], object] = lambda _: None,
) -> Revision:
    """Revise the model and write the folder; see :func:`unlearn_kit.deployed.revise`.

    Args:
        prepared: What is revised.
        estimated: Called with what the training will take, after its first steps.
        say: Told what it costs to train a reference, before one is trained.
    """
    request = prepared.request
    function: Any = getattr(algorithms, request.chosen().name)
    wanted, later = read_reference(request.reference), dict[str, Any]()
    if isinstance(wanted, Path):
        later["reference"] = prepared.serving.with_weights(wanted)
    elif wanted is not None:
        recipe = request.reference or ""
        later["reference" if wanted.share == 1 else "told"] = Later(recipe, lambda: _trained(prepared, wanted, say))
    return revise(
        prepared.serving,
        prepared.task,
        function,
        out=request.out,
        seed=request.seed,
        earlier=request.earlier,
        **later,
        **shared_arguments(prepared, estimated),
    )


def _trained(prepared: Prepared, wanted: Retraining, say: Callable[[str], object]) -> nn.Module | dict[str, Any]:
    """Return the reference that a request wants, or the verdicts on the retraining of a part of the data."""
    say(cost(prepared, wanted))
    request, model, task = prepared.request, prepared.serving.model, prepared.task
    if wanted.share == 1:
        return whole_reference(wanted, model, task, seed=request.seed, device=request.device)
    names = prepared.bundle.class_names
    found = small_verdicts(wanted, model, task, class_names=names, seed=request.seed, device=request.device)
    return {f"verdicts on a retraining with {wanted.share:.0%} of the data": found}


def shared_arguments(prepared: Prepared, estimated: Callable[[TimeEstimate], object]) -> dict[str, Any]:
    """Return what a revision is told of its request, alone or as one of a ledger.

    Args:
        prepared: What is revised.
        estimated: As for :func:`work`.
    """
    request, method = prepared.request, prepared.request.chosen()
    watched = "callbacks" in known_options(method.name)
    found: dict[str, Any] = {} if request.audits is None else {"audits": tuple(request.audits)}
    return found | {
        "form": request.form,
        "device": request.device,
        "options": as_options(method.options),
        "watching": {"callbacks": [RevisionProgress(method.text, estimated)]} if watched else {},
        "notes": prepared.notes,
        "asked": request.asked,
        "groups": groups_of(prepared),
        "beside": {REQUEST: yaml_of(request)},
        "budget": request.budget,
        "class_names": prepared.bundle.class_names,
    }


def cost(prepared: Prepared, wanted: Retraining) -> str:
    """Return what it costs to train the reference that a request wants, in words."""
    request = prepared.request
    seconds = seconds_of(wanted, prepared.serving.model, prepared.task, seed=request.seed, device=request.device)
    what = "a reference" if wanted.share == 1 else f"a pair of models on {wanted.share:.0%} of the data"
    return f"{what} is trained first, in about {seconds:.0f} s"


def groups_of(prepared: Prepared) -> Callable[[UnlearnTask], dict[str, list[str]]] | None:
    """Return what tells the group of every sample of a task by split, of the column that the request names.

    None where it names none: then the tables' own column of patients or the like counts.

    Raises:
        ValueError: On a column that the table has not, or an image without a group.
    """
    column = prepared.request.patient or prepared.request.data.group
    if column is None:
        return None
    bundle, known = prepared.bundle, dict[Path, str]()
    for part, table in ((bundle.train, bundle.train_metadata), (bundle.test, bundle.test_metadata)):
        if table is None:
            raise ValueError(f"expected a table of metadata with the column {column!r}, but there is none")
        check_choice("group", column, [str(name) for name in table.columns])
        files = files_of(part) or []
        known |= {own[0]: str(name) for own, name in zip(files, table[column].fillna(""), strict=True)}
    lost = sum(name == "" for name in known.values())
    if lost:
        raise ValueError(f"expected a {column} for every image, but got none for {lost}")

    def of(task: UnlearnTask) -> dict[str, list[str]]:
        splits = {name: files_of(getattr(task, name)) for name in SPLITS}
        return {name: [known[own[0]] for own in files] for name, files in splits.items() if files is not None}

    return of


def yaml_of(request: RevisionRequest) -> str:
    """Return the request as the YAML that makes it again."""
    values = request.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
