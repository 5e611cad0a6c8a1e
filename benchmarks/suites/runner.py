"""Run a suite: every node once, in an order that meets their needs, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unlearn_kit.files import write_json
from unlearn_kit.metrics import Evaluation

from .backends import Backend, check_backend, make_backend
from .execute import Finished, Product
from .plan import Node, Shard, plan, select
from .progress import Estimate, Progress, in_words
from .receipts import receipt_of
from .records import Record, is_trained
from .schema import Suite
from .store import Claim, Store

POLL = 0.5  # seconds between looks at what another runner is working on


@dataclass(repr=False)
class SuiteSummary:
    """What became of the nodes of a run: names by outcome, where there was none with the reason.

    Attributes:
        done: Names of those that were run.
        reused: Of those that were there already.
        refused: Of those without scores, with the reason: refused by the method, or diverged.
        failed: Of those that an error ended, with its last line.
        skipped: Of those that needed one that failed.
        worked: Seconds that workers spent on the nodes of this run.
        seconds: Wall time of the run.
    """

    done: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    worked: float = 0.0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Return whether every node is ok."""
        return not (self.refused or self.failed or self.skipped)

    @property
    def text(self) -> str:
        """Return all of it in one line."""
        parts = [f"{len(self.done)} run", f"{len(self.reused)} already there"]
        for name in ("refused", "failed", "skipped"):
            count = len(getattr(self, name))
            parts += [f"{count} {name}"] if count else []
        return f"{', '.join(parts)} in {in_words(self.seconds)}"

    def __repr__(self) -> str:
        """Return the same, as a value."""
        return f"<SuiteSummary: {self.text}>"


def run_suite(
    suite: Suite,
    out: str | Path,
    *,
    workers: int = 1,
    threads: int = 1,
    backend: str = "local",
    gpus: float = 1.0,
    only: str | None = None,
    shard: Shard | None = None,
    fresh: bool = False,
    progress: bool = False,
) -> SuiteSummary:
    """Run what of a suite is not in the folder yet.

    Every node is written as soon as it is finished; killed at any moment, the same call goes on from there. A node that
    fails is recorded with its traceback, those that need it are skipped, all others go on; one whose worker process or
    machine died is run once more first. Several runners may share the folder.

    Args:
        suite: What to run.
        out: The folder, see :mod:`.store`.
        workers: Nodes at a time.
        threads: CPU threads of each worker.
        backend: "local" or "ray", see :mod:`.backends`.
        gpus: How much of a GPU each run takes with "ray" on the device "cuda": a share, or a whole number of them.
        only: Runs whose name holds this text (or matches it, with ``*``), and what they need.
        shard: ``(i, n)`` for the i-th of n parts of these runs, such as one job of an array: together all of them.
        fresh: Run everything again, but for what another runner is working on now and what that needs. Another
            runner that finds gone what it counted as finished does it again, or waits until this one has.
        progress: Whether to tell on standard error.

    Raises:
        ValueError: Before anything is trained, on settings or a suite that cannot be run.
        TypeError: Likewise.
        DataNotFoundError: Likewise, where data are not there.
        OSError: When the folder cannot be written to, or the disk is full: what was finished is kept.
    """
    started = time.perf_counter()
    check_backend(backend, workers=workers, threads=threads, device=suite.device, gpus=gpus)
    every = plan(suite)
    nodes = select(every, only, shard)
    store = Store(out)
    _note_suite(store, suite, every)
    if fresh:
        _forget(store, nodes)
    run = _Run(nodes, store, workers, progress)
    if run.pending:
        run.go(make_backend(backend, store, workers=workers, threads=threads, gpus=gpus))
    run.summary.seconds = time.perf_counter() - started
    return run.summary


def _note_suite(store: Store, suite: Suite, nodes: Iterable[Node]) -> None:
    """Write down all that a suite plans, though only a part of it may be run now."""
    rows = [{"key": node.key, "kind": node.kind, "name": node.name, **node.labels} for node in nodes]
    values = {"name": suite.name, "about": suite.about, "suite": suite.model_dump(mode="json"), "nodes": rows}
    write_json(values, store.path("suites", suite.name))


def _forget(store: Store, nodes: Sequence[Node]) -> None:
    """Remove what is finished, but for what another runner is working on and what that needs."""
    kept: set[str] = set()
    for node in reversed(nodes):  # what needs a node comes after it, so here before it
        claim = None if node.key in kept else store.claim(node.key)
        if claim is None:
            kept.update((node.key, *node.needs.values()))
            continue
        store.forget(node.key)
        claim.release()


class _Run:
    def __init__(self, nodes: list[Node], store: Store, workers: int, progress: bool) -> None:
        self.nodes = {node.key: node for node in nodes}
        self.store, self.workers = store, workers
        self.summary, self.estimate = SuiteSummary(), Estimate()
        self.pending: dict[str, Node] = {}
        self.claims: dict[str, Claim] = {}
        self.finished: set[str] = set()
        self.lost: set[str] = set()
        self.retried: set[str] = set()
        for node in nodes:
            if (record := store.read(node.key)) is None:
                self.pending[node.key] = node
            else:
                self._reuse(node, record)
        self.progress = Progress(len(nodes), len(self.finished)) if progress and self.pending else None

    def go(self, backend: Backend) -> None:
        """Work until nothing is left to do."""
        try:
            while self.pending or self.claims:
                self._fill(backend)
                if not self.pending and not self.claims:
                    break
                # With nothing of its own under way, all that is left is another runner's.
                ended = backend.wait(POLL if self.pending else 3600.0) if self.claims else _rest()
                # First new work, then the writing, so that no worker waits for the disk.
                self._fill(backend)
                for one in ended:
                    self._end(one)
        finally:
            backend.close()
            for claim in self.claims.values():
                claim.release()
            if self.progress is not None:
                self.progress.close()

    def _fill(self, backend: Backend) -> None:
        for key, node in list(self.pending.items()):
            if self.lost & set(node.needs.values()):
                self._lose(node)
                self.summary.skipped.append(node.name)
                self._tell(f"skipped {node.name}")
            elif backend.free() > 0 and self.finished.issuperset(node.needs.values()):
                self._begin(backend, key, node)

    def _begin(self, backend: Backend, key: str, node: Node) -> None:
        claim = self.store.claim(key)
        if claim is None:
            return
        # Only now: another runner may have finished it since this one looked.
        record = self.store.read(key)
        if record is not None:
            claim.release()
            del self.pending[key]
            self._reuse(node, record)
            self._tell(f"ok {node.name}, by another runner")
            return
        gone = [need for need in node.needs.values() if not self.store.has(need)]
        if gone:  # another runner was started with ``fresh`` meanwhile
            claim.release()
            self.finished.difference_update(gone)
            self.pending |= {need: self.nodes[need] for need in gone}
            if self.progress is not None:
                self.progress.done -= len(gone)
            return
        self.claims[key] = claim
        del self.pending[key]
        backend.submit(node)

    def _end(self, one: Finished) -> None:
        node = self.nodes[one.key]
        if one.died and one.key not in self.retried:
            # Memory that ran out, a machine that left: not the method's fault, so it is tried once more.
            self.retried.add(one.key)
            self.claims.pop(one.key).release()
            self.pending[one.key] = node
            self._tell(f"again {node.name}: {one.reason}")
            return
        if one.product is None:
            self.store.write_failure(
                one.key,
                {"name": node.name, "config": node.config, "reason": one.reason, "traceback": one.trace},
            )
            self._lose(node)
            self.summary.failed[node.name] = one.reason
            said = f"failed {node.name}: {one.reason}"
        else:
            self._write(node, one.product)
            self.finished.add(one.key)
            record = one.product.record
            seconds = record.cost.node_seconds
            self.estimate.learn(node, seconds)
            self.summary.worked += seconds
            (self.summary.done.append(node.name) if record.status == "ok" else self._refuse(node, record))
            said = f"{record.status} {node.name}, {in_words(seconds)}"
        self.claims.pop(one.key).release()
        self._tell(said)

    def _write(self, node: Node, product: Product) -> None:
        """Write everything that belongs to a node, its record last."""
        record = product.record
        try:
            if product.samples:
                target = self.store.path("samples", str(record.hashes["forget"]))
                if not target.is_file():
                    write_json({"rules": record.config["forget"], "sha256": product.samples}, target)
            if node.kind == "result":
                if "reference" in node.needs:
                    trained = self.store.read(node.needs["reference"])
                    model = None if trained is None else trained.hashes["model"]
                    record = replace(record, hashes={**record.hashes, "reference": model})
                if not is_trained(node.config["method"]["name"]):
                    receipt_of(record, *self._beside(node)).save(self.store.root / "receipts", node.key)
        except OSError as error:
            raise self.store.unwritable(error) from error
        self.store.write(record, product.tensors)

    def _beside(self, node: Node) -> tuple[Evaluation | None, Evaluation | None]:
        """Return how doing nothing and the reference scored under the first evaluation seed."""
        found = [self.store.read(node.needs[role]) for role in ("nothing", "baseline")]
        original, reference = (
            None if record is None or not record.evaluations else record.evaluations[0].evaluation for record in found
        )
        return original, reference

    def _reuse(self, node: Node, record: Record) -> None:
        self.finished.add(node.key)
        self.estimate.learn(node, record.cost.node_seconds)
        if record.status == "ok":
            self.summary.reused.append(node.name)
        else:
            self._refuse(node, record)

    def _refuse(self, node: Node, record: Record) -> None:
        self.summary.refused[node.name] = f"{record.status}: {record.reason}"

    def _lose(self, node: Node) -> None:
        self.pending.pop(node.key, None)
        self.lost.add(node.key)

    def _tell(self, text: str) -> None:
        if self.progress is not None:
            waiting = [*self.pending.values(), *(self.nodes[key] for key in self.claims)]
            self.progress.tell(text, self.estimate.left(waiting, self.workers))


def _rest() -> list[Finished]:
    time.sleep(POLL)
    return []
