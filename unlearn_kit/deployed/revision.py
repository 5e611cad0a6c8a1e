"""Make a deployed model forget: a revised checkpoint comes out, in the form of the original's, and its receipt."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from .. import adapters
from ..arguments import checked
from ..checkpoints import same_bits
from ..engine import resumable
from ..errors import CheckpointError, check_choice
from ..evidence import Receipt, earlier_receipts, inventory, receipt, seal
from ..evidence.folder import LISTS, changed_files, read_receipt
from ..evidence.measure import known_groups
from ..evidence.receipt import Measuring
from ..files import write_json, write_text
from ..hashing import hash_code, hash_config, hash_file, hash_model, known_by
from ..results import UnlearnResult
from ..tasks import UnlearnTask
from .page import page
from .preflight import preflight
from .reading import read_once
from .serving import Deployed
from .unfinished import unfinished
from .weights import FORMATS, fit_weights, load_into, read_weights, write_weights

Method = Callable[..., UnlearnResult]
SAVED_EVERY = 60.0  # seconds between two saves of a training


@dataclass(frozen=True)
class Revision:
    """What a revision of a deployed model left behind.

    Attributes:
        folder: Where everything lies.
        checkpoint: The revised weights, in the original's form: a file, or a folder for Hugging Face.
        receipt: What was asked, done and measured.
        warnings: What was suspicious before it began, and what was left out of the checkpoint.
        result: What the method returned; None where the folder held this very revision already.
    """

    folder: Path
    checkpoint: Path
    receipt: Receipt
    warnings: tuple[str, ...]
    result: UnlearnResult | None


@dataclass(frozen=True)
class Later:
    """What is made only where a revision is: where its folder is there already, nobody needs it.

    Attributes:
        recipe: What it is made of, beside the model, the data and the seed of the revision: it tells the request.
        make: Makes it.
    """

    recipe: str
    make: Callable[[], Any]


@checked
def revise(
    serving: Deployed,
    task: UnlearnTask,
    method: Method,
    *,
    out: str | Path,
    form: str | None = None,
    reference: nn.Module | Later | None = None,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    watching: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    asked: Mapping[str, str] | None = None,
    groups: Mapping[str, Sequence[Any]] | Callable[[UnlearnTask], Mapping[str, Sequence[Any]]] | None = None,
    earlier: Sequence[str | Path] = (),
    beside: Mapping[str, str] | None = None,
    told: Mapping[str, Any] | Later | None = None,
    **measuring: Unpack[Measuring],
) -> Revision:
    """Make a deployed model forget, and write what serves and what proves it.

    The folder holds the revised weights under the name and in the form of the original's file, ``adapters.safetensors``
    where the method made adapters, ``receipt.json`` and ``receipt.md``, the lists ``data.json`` of what was forgotten
    and kept, the in-toto ``statement.json``, and the page ``index.html``. The receipt names the SHA-256 of each file.
    The folder is there whole or not at all; the same call finds its own work done. Where a call was interrupted in the
    middle of a training, the same call goes on there, and the bits are the same.

    Args:
        serving: The model, see :func:`.serving.deployed`.
        task: What it shall forget.
        method: An algorithm of ``algorithms``.
        out: The folder, which must not be there, or be empty.
        form: "safetensors" or "pth"; the original's by default.
        reference: A model retrained without the data, where there is one, or what makes it.
        seed: Of the revision and the evaluation.
        device: Where the method runs.
        options: Of the method.
        watching: What is passed to the method beside that and changes no result, such as ``callbacks``.
        notes: What else is to be known of the request, for the receipt and the page.
        asked: Who asked, ticket, basis, date: free text for the receipt.
        groups: The group of every sample, such as its patient, as for :func:`unlearn_kit.evidence.measure`, or what
            tells it of a task.
        earlier: Folders of earlier revisions that this one stands on; one whose checkpoint is revised again is found.
        told: Further figures for the receipt, which are not judged, or what makes them.
        beside: Further files of text for the folder, by name, such as the request itself.
        **measuring: What :func:`unlearn_kit.evidence.measure` takes: audits, budget, class_names, thresholds.

    Raises:
        TypeError: When an argument is of another type, by its name.
        ValueError: On what the method or the task refuse, and when ``out`` holds anything else.
        DivergenceError: When training broke down; nothing is written then.
        CheckpointError: When what was written does not give back the model that was measured.
        OSError: When the folder cannot be written to.
    """
    folder = _named(out)
    options = dict(options or {})
    if form is not None:
        check_choice("form", form, FORMATS)
        if serving.weights is None and form != "safetensors":
            raise ValueError(f"expected form to be 'safetensors' for hf:FOLDER, but got {form!r}")
    task, reading = read_once(task)
    measured = {name: value for name, value in measuring.items() if value is not None}
    found_groups = groups(task) if callable(groups) else groups
    known = dict(known_groups(task) if found_groups is None else found_groups)
    proof = (
        dict(asked or {}),
        known,
        [str(path) for path in earlier],
        measured,
        told.recipe if isinstance(told, Later) else dict(told or {}),
    )
    request = _request(serving, task, method, form, reference, seed, options, proof)
    found = _already(folder, request)
    if found is not None:
        return found
    with unfinished(folder, request) as place:
        warnings = [*notes, *preflight(serving.model, task, seed=seed)]
        if place.resumed:
            warnings.append("the revision was interrupted and went on where it was; its seconds are those of the rest")
        reference = reference.make() if isinstance(reference, Later) else reference
        told = told.make() if isinstance(told, Later) else told
        with resumable(place.runs, seconds=SAVED_EVERY):
            result = method(serving.model, task, seed=seed, device=device, **options, **(watching or {}))
        whole = adapters.plain(result.model)  # what serves holds adapters added into its weights
        original = {path: hash_file(path) for path in _original_files(serving)}
        lists = inventory(task)
        paper = receipt(
            task,
            serving.model,
            replace(result, model=whole),
            reference=reference,
            seed=seed,
            asked=asked,
            groups=known,
            earlier=earlier_receipts(earlier, original),
            lists=lists,
            **measuring,
        )
        checkpoint, left_out = write_checkpoint(serving, whole, place.result, form)
        if left_out:
            warnings.append(f"left out of the checkpoint, as it may remember the forgotten data: {', '.join(left_out)}")
        if whole is not result.model:
            adapters.save(result.model, place.result / "adapters.safetensors")
        after = _hashes(place.result)
        write_json(lists, place.result / LISTS)
        for name, text in (beside or {}).items():
            if (place.result / name).exists():
                raise ValueError(
                    f"expected beside to name further files, but got {name!r}, which is the revision's own"
                )
            write_text(text, place.result / name)
        read = [*serving.words, *([] if reading is None else [reading])]
        said = {"request": request, "read": read, "warnings": warnings, "checkpoint": checkpoint.name}
        before = {path.name: digest for path, digest in original.items()}
        files = {"files": _hashes(place.result), "checkpoints": {"before": before, "after": after}}
        figures = {"figures": paper.values["figures"] | dict(told or {})}
        paper = Receipt(paper.values | files | figures | {"deployed": said})
        names = measuring.get("class_names")
        write_text(page(paper, task, serving.model, whole, class_names=names), place.result / "index.html")
        seal(paper, place.result)
    return Revision(folder, folder / checkpoint.name, paper, tuple(warnings), result)


def _named(out: str | Path) -> Path:
    """Return the folder to write, when it has a name of its own, beside which it can be made."""
    folder = Path(out)
    if folder.name in ("", ".."):
        raise ValueError(f"expected out to be a folder to write, with a name, but got {str(out)!r}")
    return folder


def _request(
    serving: Deployed,
    task: UnlearnTask,
    method: Method,
    form: str | None,
    reference: nn.Module | Later | None,
    seed: int,
    options: Mapping[str, Any],
    proof: object,
) -> str:
    """Return what tells this revision from every other: a hash of all that it depends on."""
    return hash_config(
        (
            hash_model(serving.model),
            hash_model(reference) if isinstance(reference, nn.Module) else reference and reference.recipe,
            task.rule,
            [known_by(part) for part in (task.forget, task.retain, task.forget_test, task.retain_test)],
            str(getattr(method, "__name__", method)),
            {name: str(value) for name, value in options.items()},
            form,
            seed,
            json.dumps(proof, default=str, sort_keys=True),
            hash_code("unlearn_kit", "algorithms"),
        )
    )


def _already(folder: Path, request: str) -> Revision | None:
    """Return the revision that lies in a folder already; None where there is none.

    Raises:
        ValueError: When the folder holds anything else, or its files changed.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    wanted = f"expected out to be a new or an empty folder, but got {str(folder)!r}"
    try:
        values = read_receipt(folder)
        told, asked, changed = values["deployed"], values["request"]["rules"], changed_files(folder, values)
        revision = Revision(folder, folder / told["checkpoint"], Receipt(values), tuple(told["warnings"]), None)
        own = told["request"] == request
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{wanted}, which holds other files") from error
    if not own:
        raise ValueError(f"{wanted}, which holds another revision: forget {'; '.join(asked)}, {values['made']}")
    if changed:
        raise ValueError(f"{wanted}, which holds this revision, but its receipt names other contents of {changed}")
    return revision


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its name there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}


def _original_files(serving: Deployed) -> list[Path]:
    """Return the files that the original's weights were read from."""
    if serving.weights is not None:
        return [serving.weights.file.path]
    folder = Path(serving.network.source.partition(":")[2])
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))


def write_checkpoint(
    serving: Deployed, whole: nn.Module, folder: Path, form: str | None
) -> tuple[Path, tuple[str, ...]]:
    """Write the revised weights, and read them again; return where they are, and what was left out."""
    network: Any = whole if serving.normalization is None else whole.network
    if serving.weights is None:
        target = folder / "model"
        network.save_pretrained(target)
        mode = (target / "config.json").stat().st_mode
        for written in target.glob("*.safetensors"):  # which its library lets nobody else read
            written.chmod(mode)
        source = Path(serving.network.source.partition(":")[2])
        for beside in source.glob("*.json"):  # of the preprocessing: what serves reads it from the folder
            if not (target / beside.name).exists():
                shutil.copyfile(beside, target / beside.name)
        return target, ()
    old = serving.weights.file
    target = folder / (old.path.name if form in (None, old.form) else f"{old.path.stem}.{form}")
    left_out = write_weights(serving.weights, network.state_dict(), target, form=form)
    key = ".".join(old.key) if old.key and target.suffix != ".safetensors" and form in (None, old.form) else None
    again = copy.deepcopy(network)
    load_into(fit_weights(read_weights(target, key=key), again), again)
    wrong = [name for name, t in again.state_dict().items() if not same_bits(t, network.state_dict()[name].cpu())]
    if wrong:
        raise CheckpointError(f"{target.name!r} does not give back the revised model: {wrong[:8]} differ")
    return target, left_out
