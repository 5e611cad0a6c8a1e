"""Requests served one after the other over months, each from the model that serves now, and written in a ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..data.checks import check_dataset
from ..errors import check_choice
from ..evidence.ledger import ActingAdapter, Ledger, ServedModel
from ..evidence.ledger_chain import Line
from ..evidence.ledger_samples import keep_out
from ..hashing import hash_model
from ..tasks import UnlearnTask
from .joining import joining, names_in, with_checkpoint, write_joined
from .ledger_page import write_page
from .recording import checked_receipt, in_force, left_out_words, record, scored
from .revision import Method, revise
from .serving import Deployed

ADAPTERS = "adapters.safetensors"


@checked
def serving_now(ledger: Ledger, serving: Deployed) -> Deployed:
    """Return the model that serves now by the ledger; ``serving`` itself where the ledger is empty.

    Args:
        ledger: The ledger.
        serving: A model of the same architecture, with whatever weights.

    Raises:
        ValueError: When the weights are no longer those that the ledger names.
        FileNotFoundError: When they are gone.
        CheckpointError: When they do not fit the architecture.
    """
    now = ledger.serves()
    return serving if now is None else with_checkpoint(serving, ledger.check_file(now.checkpoint))


@checked
def add_request(
    ledger: Ledger,
    serving: Deployed,
    task: UnlearnTask,
    method: Method,
    *,
    name: str,
    join: bool = False,
    seed: int = 0,
    notes: Sequence[str] = (),
    data: Sequence[Any] = (),
    request: Mapping[str, Any] | None = None,
    timeout: float = -1,
    **revising: Any,
) -> Line:
    """Make the model that serves now forget one request more, score every earlier one again, and write it down.

    What requests in force forget is no retain data of the revision (see :func:`.keep_out`). Killed at any moment, the
    ledger holds the request or not; the same call goes on from the revision that was finished.

    Args:
        ledger: The ledger; an empty one is opened with ``serving`` as the model that served first.
        serving: The model, see :func:`.deployed`: its architecture counts, the ledger says which weights serve.
        task: What it shall forget.
        method: An algorithm of ``algorithms``.
        name: The request's, which stays its own for good.
        join: Train an adapter beside those in service: alone on the weights under them, so that each of them can be
            withdrawn by itself; all of them are added into what serves.
        seed, notes: As for :func:`.revise`.
        data: More data sets, in which samples of earlier requests are looked for beside the task's own.
        request: The request as it was written, as plain values, for the line.
        timeout: How long to wait for another process that has the ledger, in seconds; -1 for as long as it takes.
        **revising: What :func:`.revise` takes beside that, such as ``options`` of the method. What has a value a sample
            must fit the task without what is kept out.

    Raises:
        ValueError: On what :func:`.revise` refuses; on a name that is taken; with ``join`` on a method that makes no
            adapters, or on adapters that cannot act together.
        TimeoutError: When the ledger is not free in time.
    """
    _check_data(data)
    with ledger.changing(timeout):
        ledger.check_new(name)
        now = ledger.serves() or _open(ledger, serving)
        run = method
        if join:
            base = with_checkpoint(serving, ledger.check_file(now.base)).model
            run = joining(method, base, _checked(ledger, now.adapters), name)
        kept, counts = keep_out(task, in_force(ledger))
        revision = revise(
            serving_now(ledger, serving),
            kept,
            run,
            out=ledger.folder / "requests" / name,
            seed=seed,
            notes=(*notes, *left_out_words(counts)),
            **revising,
        )
        model = hash_model(with_checkpoint(serving, revision.checkpoint).model)
        own = _own_adapter(revision.folder, name)
        served = _served(now, revision.checkpoint, model, own, join=join)
        line = record(ledger, serving, task, name, revision.folder, served, counts, True, seed, data, request)
        write_page(ledger)
    return line


@checked
def add_revision(
    ledger: Ledger,
    serving: Deployed,
    task: UnlearnTask,
    folder: str | Path,
    *,
    name: str,
    seed: int = 0,
    data: Sequence[Any] = (),
    request: Mapping[str, Any] | None = None,
    timeout: float = -1,
) -> Line:
    """Write down a revision that was made already, when it started from the model that serves now.

    One that made an adapter on the weights under those in service joins them: what serves then holds all of them.

    Args:
        ledger: The ledger; an empty one is opened with ``serving`` as the model that served first.
        serving: The model, as for :func:`add_request`.
        task: What was to be forgotten: its samples are scored, and those of earlier requests that it retained counted.
        folder: The folder that :func:`.revise` wrote.
        name, seed, data, request, timeout: As there.

    Raises:
        ValueError: When the folder is none, its files were changed, or it started from another model; a taken name.
        TimeoutError: When the ledger is not free in time.
    """
    source = Path(folder)
    values = checked_receipt(source)
    _check_data(data)
    with ledger.changing(timeout):
        ledger.check_new(name)
        now = ledger.serves() or _open(ledger, serving)
        before, own = values["models"]["before"], _own_adapter(source, name)
        joins = own is not None and bool(now.adapters) and before == now.base_model
        if before != now.model and not joins:
            raise ValueError(
                f"expected folder to hold a revision of the model that serves now ({now.model[:12]}...), but it "
                f"revised {before[:12]}...; make it again from what serves: add its revision.yaml instead"
            )
        checkpoint = source / values["deployed"]["checkpoint"]
        if joins and own is not None:
            base = with_checkpoint(serving, ledger.check_file(now.base))
            target = ledger.folder / "requests" / f"{name}.joined"
            checkpoint = write_joined(base, [*_checked(ledger, now.adapters), own], target)
        model = hash_model(with_checkpoint(serving, checkpoint).model)
        served = _served(now, checkpoint, model, own, join=joins)
        _, counts = keep_out(task, in_force(ledger))  # for the counts: it is made, with all that it retained
        line = record(ledger, serving, task, name, source, served, counts, False, seed, data, request)
        write_page(ledger)
    return line


@checked
def withdraw_request(
    ledger: Ledger,
    serving: Deployed,
    name: str,
    *,
    reason: str = "",
    data: Sequence[Any] = (),
    timeout: float = -1,
) -> Line:
    """Take a request back: the model serves without it from now on, and the ledger says so.

    An adapter that was trained alone is left out of those that are added up: what serves is, bit for bit, what would
    serve had only the others been added. The last request of another kind gives way to the model before it. What later
    requests stand on cannot be taken from under them.

    Args:
        ledger: The ledger.
        serving: The model, as for :func:`add_request`.
        name: The request.
        reason: Why, in words.
        data: Data sets, in which the samples of the others are looked for, to score them again.
        timeout: As there.

    Raises:
        ValueError: On an unknown request, one that was withdrawn, or one that others stand on, naming what is needed.
        TimeoutError: When the ledger is not free in time.
    """
    _check_data(data)
    with ledger.changing(timeout):
        check_choice("name", name, ledger.requests())
        now = ledger.serves()
        if name in ledger.withdrawn() or now is None:
            raise ValueError(
                f"expected name to be in force, but line {ledger.withdrawn()[name].number} withdrew {name!r}"
            )
        left = [one for one in now.adapters if one.request != name]
        if left and len(left) < len(now.adapters):
            base = with_checkpoint(serving, ledger.check_file(now.base))
            checkpoint = write_joined(base, _checked(ledger, left), ledger.folder / "requests" / f"{name}.withdrawn")
            model = hash_model(with_checkpoint(serving, checkpoint).model)
            served = ServedModel(checkpoint, model, now.base, now.base_model, tuple(left))
        else:
            served = _before(ledger, name)
        others = {other: samples for other, samples in in_force(ledger).items() if other != name}
        beside = scored(ledger, serving, served, others, data)
        told = {"name": name, "reason": reason, "serves": ledger.words_of(served), **beside}
        line = ledger.write("withdrawal", told)
        write_page(ledger)
    return line


def _open(ledger: Ledger, serving: Deployed) -> ServedModel:
    file = Path(serving.network.source.partition(":")[2]) if serving.weights is None else serving.weights.file.path
    served = ServedModel.plain(file, hash_model(serving.model))
    ledger.write("opening", {"read": serving.words, "serves": ledger.words_of(served)})
    return served


def _check_data(data: Sequence[Any]) -> None:
    for place, dataset in enumerate(data):
        check_dataset(f"data[{place}]", dataset)


def _checked(ledger: Ledger, acting: Sequence[ActingAdapter]) -> Sequence[ActingAdapter]:
    """Return the adapters when their files are as the ledger names them."""
    for one in acting:
        ledger.check_file(one.file)
    return acting


def _own_adapter(folder: Path, name: str) -> ActingAdapter | None:
    """Return the adapter that a revision made: the last in its file, after those it joined."""
    file = folder / ADAPTERS
    return ActingAdapter(name, file, names_in(file)[-1]) if file.exists() else None


def _served(now: ServedModel, checkpoint: Path, model: str, own: ActingAdapter | None, *, join: bool) -> ServedModel:
    if own is None:
        return ServedModel.plain(checkpoint, model)
    if join:
        return ServedModel(checkpoint, model, now.base, now.base_model, (*now.adapters, own))
    return ServedModel(checkpoint, model, now.checkpoint, now.model, (own,))


def _before(ledger: Ledger, name: str) -> ServedModel:
    """Return the model that served before a request which no other stands on.

    Raises:
        ValueError: When others stand on it, naming them.
    """
    lines, requests = ledger.lines(), ledger.requests()
    place = requests[name].number  # of the line after its own
    while place < len(lines) and name in _acting(lines[place]):
        place += 1
    standing_on = [other for other in ledger.active() if requests[other].number > place]
    if standing_on:
        first = ", then ".join(repr(other) for other in (*reversed(standing_on), name))
        raise ValueError(
            f"expected a request that no other stands on, but the model that {name!r} changed is what {standing_on} "
            f"revised: withdraw {first}, and add the others again; adapters that join those in service can be "
            "withdrawn in any order"
        )
    now = ledger.serves()
    if now is not None and name in [one.request for one in now.adapters]:  # the only one: its base served before
        return next(was for line in reversed(lines) if (was := ledger.served_after(line)).checkpoint == now.base)
    return ledger.served_after(lines[requests[name].number - 2])


def _acting(line: Line) -> list[str]:
    return [row["request"] for row in line.values["serves"]["adapters"]]
