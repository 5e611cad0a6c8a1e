"""How far a suite is, by the files of its folder alone; nothing is written there."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_kit.errors import check_choice

from ..suites.records import Record
from ..suites.store import Store, planned_nodes, read_json

FRESH = 5.0  # seconds in which a claim is believed without asking the system


@dataclass(frozen=True)
class SuiteState:
    """What became of the nodes of a suite so far.

    Attributes:
        name: Of the suite.
        planned: The number of its nodes.
        done: The records of those that are finished, the latest last.
        refused: Why those of them have no scores that were refused or diverged, by name.
        failed: Why the last try of others failed, by name.
        working: Seconds since each node that a runner is at was begun, by name.
        left: Seconds until all is done, by what finished nodes of the same kind took; None while nobody can tell, or
            no runner is at work.
    """

    name: str
    planned: int
    done: tuple[Record, ...]
    refused: dict[str, str]
    failed: dict[str, str]
    working: dict[str, float]
    left: float | None

    @property
    def complete(self) -> bool:
        """Return whether every node is finished."""
        return len(self.done) == self.planned


class SuiteFolder:
    """A folder that ``unlearn-kit run`` writes, looked at again and again; a record is read once.

    Raises:
        ValueError: When no suite was run there.
    """

    def __init__(self, root: str | Path) -> None:
        self.store = Store(root, create=False)
        self._known: dict[str, tuple[int, Record]] = {}
        if not self._suites():
            raise ValueError(f"expected dir to be a folder that `unlearn-kit run` writes, but got {str(root)!r}")

    def look(self, suite: str | None = None) -> list[SuiteState]:
        """Return the state of every suite of the folder, or of one.

        Raises:
            ValueError: When there is no suite of that name.
        """
        names = self._suites()
        if suite is not None:
            names = [check_choice("suite", suite, names)]
        return [self._state(name) for name in names]

    def _suites(self) -> list[str]:
        return sorted(path.stem for path in (self.store.root / "suites").glob("*.json"))

    def _state(self, suite: str) -> SuiteState:
        nodes = planned_nodes(read_json(self.store.path("suites", suite)))
        records = {node["key"]: self._record(node["key"]) for node in nodes}
        done = sorted((one for one in records.values() if one is not None), key=lambda one: one.cost.finished)
        rest = [node for node in nodes if records[node["key"]] is None]
        failed, working = {}, {}
        for node in rest:
            name, key = str(node.get("name", node["key"])), node["key"]
            since = held_since(self.store.path("claims", key, ".lock"))
            if since is not None:
                working[name] = max(0.0, time.time() - since)
            elif (failure := read_json(self.store.path("failures", key))) is not None:
                failed[name] = str(failure.get("reason"))
        return SuiteState(
            suite,
            len(nodes),
            tuple(done),
            {one.name: f"{one.status}: {one.reason}" for one in done if one.status != "ok"},
            failed,
            working,
            _left(done, [node for node in rest if str(node.get("name", node["key"])) not in failed], working),
        )

    def _record(self, key: str) -> Record | None:
        try:
            changed = self.store.path("results", key).stat().st_mtime_ns
        except OSError:
            return None
        known = self._known.get(key)
        if known is None or known[0] != changed:
            record = self.store.read(key)
            if record is None:
                return None
            known = self._known[key] = changed, record
        return known[1]


def _left(done: list[Record], rest: list[dict[str, Any]], working: dict[str, float]) -> float | None:
    seconds: dict[str, list[float]] = defaultdict(list)
    for record in done:
        seconds[record.kind].append(record.cost.node_seconds)
    if not working or any(not seconds[str(node.get("kind"))] for node in rest):
        return None
    total = 0.0
    for node in rest:
        alike = seconds[str(node.get("kind"))]
        total += max(0.0, sum(alike) / len(alike) - working.get(str(node.get("name", node["key"])), 0.0))
    return total / len(working)


def held_since(path: Path) -> float | None:
    """Return since when a runner holds a claim, as seconds since the epoch; None where none does.

    A runner that was killed leaves its file behind, which the system no longer locks. To ask for a lock that others may
    share takes one for an instant: a runner that claims this very node just then finds it taken, and asks again.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        since = os.fstat(descriptor).st_mtime
        if time.time() - since < FRESH:
            return since
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, ImportError):  # held, or a system without such locks
        return since
    finally:
        os.close(descriptor)
    return None
