"""From a request in YAML to one more line of a ledger, and the data by which earlier requests are scored again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import algorithms
from unlearn_kit.data import DataBundle
from unlearn_kit.deployed import add_request, add_revision, withdraw_request
from unlearn_kit.errors import check_path_exists
from unlearn_kit.evidence import Ledger
from unlearn_kit.evidence.ledger_chain import Line
from unlearn_kit.safe_yaml import read_yaml

from .reference import Retraining, read_reference
from .request import DataRequest, RevisionRequest, read_request
from .work import deployed_of, prepare, shared_arguments

WRITTEN = "revision.yaml"
PATHS = (("model", "weights"), ("data", "root"))  # of what is asked, as seen from the ledger once it is written there


def add_to(
    folder: Path,
    path: Path,
    *,
    name: str | None = None,
    join: bool = False,
    timeout: float = -1,
    say: Callable[[str], object],
) -> Line:
    """Add a request of a file, or a revision that was made, to the ledger in ``folder``.

    What the request says of the model's weights counts for the first one alone: then the ledger knows what serves. The
    model and the data may be left out where an earlier request named them.

    Args:
        folder: The ledger's.
        path: ``revision.yaml``, or a folder that ``unlearn-kit revise`` wrote.
        name: The request's; by default that of the file, or of the folder.
        join: As in :func:`unlearn_kit.deployed.add_request`.
        timeout: As there.
        say: Is told what was read.

    Raises:
        ValueError: On what the request or the ledger refuse.
        FileNotFoundError: When there is no such request.
        TimeoutError: When the ledger is not free in time.
    """
    check_path_exists("REQUEST", path)
    made = path.is_dir()
    if made and join:
        raise ValueError("expected --join with a revision.yaml, but got a folder, which joins where it can")
    if made and not (path / WRITTEN).exists():
        raise ValueError(f"expected REQUEST to be a folder of `unlearn-kit revise`, but {str(path)!r} has no {WRITTEN}")
    ledger = Ledger(folder)
    with ledger.changing(timeout):  # from here on nobody else changes what serves
        name = ledger.check_new(_name(path) if name is None else name)
        request = _read(ledger, path / WRITTEN if made else path, folder / "requests" / name)
        ready = prepare(request)
        for line in ready.serving.words:
            say(line)
        shared: dict[str, Any] = {
            "name": name,
            "seed": request.seed,
            "data": _earlier_data(ledger, request.data),
            "request": _asked(ledger, request),
        }
        if made:
            return add_revision(ledger, ready.serving, ready.task, path, **shared)
        wanted = read_reference(request.reference)
        if isinstance(wanted, Retraining):
            raise ValueError(
                f"expected reference to be a file of weights in a ledger, but got {request.reference!r}: which data it "
                "is trained on is known only once those of earlier requests are kept out"
            )
        return add_request(
            ledger,
            ready.serving,
            ready.task,
            getattr(algorithms, request.chosen().name),
            join=join,
            reference=None if wanted is None else ready.serving.with_weights(wanted),
            **shared,
            **shared_arguments(ready, lambda time: say(str(time))),
        )


def withdraw_from(folder: Path, name: str, *, reason: str = "", timeout: float = -1) -> Line:
    """Withdraw a request from the ledger in ``folder``; the others are scored again on the data that they named.

    Raises:
        ValueError: On what the ledger refuses.
        TimeoutError: When it is not free in time.
    """
    ledger = Ledger(folder)
    known = _known(ledger)
    if not known:
        raise ValueError("expected LEDGER to say how its model is read, but no request of it came from a revision.yaml")
    request = _read(ledger, None, folder)
    bundle = request.data.load()
    parts = [*_parts(bundle), *_earlier_data(ledger, request.data)]
    return withdraw_request(ledger, deployed_of(request, bundle), name, reason=reason, data=parts, timeout=timeout)


def _name(path: Path) -> str:
    """Return the name of a request by its file, or of the folder where every file is called alike."""
    own = path.resolve()
    text = own.parent.name if own.name == WRITTEN else own.stem if own.is_file() else own.name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "request"


def _known(ledger: Ledger) -> list[Mapping[str, Any]]:
    """Return what was asked, of every request that came from a file; its paths as seen from here."""
    found: list[Mapping[str, Any]] = []
    for line in ledger.requests().values():
        asked = line.values.get("asked")
        if asked is not None:
            whole = {key: dict(value) if isinstance(value, Mapping) else value for key, value in asked.items()}
            for place, key in PATHS:
                if key in whole[place]:
                    whole[place][key] = str(ledger.path(whole[place][key]))
            found.append(whole)
    return found


def _read(ledger: Ledger, path: Path | None, out: Path) -> RevisionRequest:
    """Return a request, run against the model that serves now; with no path the last one again."""
    known = _known(ledger)
    values = {} if path is None else read_yaml(path, "request")
    options: dict[str, Any] = {"out": str(out)}
    last = known[-1] if known else {}
    if path is None:
        options |= {key: value for key, value in last.items() if key not in ("model", "data", "out")}
    for place in ("model", "data"):
        if isinstance(values, Mapping) and place not in values:
            options |= {f"{place}.{key}": value for key, value in last.get(place, {}).items()}
    now = ledger.serves()
    if now is not None:
        model = values.get("model", last.get("model", {})) if isinstance(values, Mapping) else {}
        source = model if isinstance(model, str) else dict(model).get("source", "")
        if str(source).startswith("hf:"):
            options["model.source"] = f"hf:{now.checkpoint}"
        else:
            options["model.weights"] = str(now.checkpoint)
    return read_request(path, options)


def _asked(ledger: Ledger, request: RevisionRequest) -> dict[str, Any]:
    values: dict[str, Any] = request.model_dump(mode="json", exclude_defaults=True, exclude={"out"})
    for place, key in PATHS:
        if key in values[place]:
            values[place][key] = ledger.name_of(values[place][key])
    return values


def _parts(bundle: DataBundle) -> list[Any]:
    return [bundle.train, bundle.test, *([] if bundle.validation is None else [bundle.validation])]


def _earlier_data(ledger: Ledger, current: DataRequest) -> list[Any]:
    """Return the data that earlier requests named and this one does not, as far as they are still there."""
    named = {str(_key(current)): current}
    for asked in _known(ledger):
        other = DataRequest.model_validate(asked["data"])
        named.setdefault(str(_key(other)), other)
    others = [request for key, request in named.items() if key != str(_key(current))]
    return [part for request in others if request.root.exists() for part in _parts(request.load())]


def _key(request: DataRequest) -> tuple[Any, ...]:
    return request.root.resolve(), sorted(request.model_dump(exclude={"root"}, exclude_none=True).items(), key=str)
