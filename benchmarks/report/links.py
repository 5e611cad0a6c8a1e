"""Where the files of a run are, as addresses relative to the report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..suites.records import is_trained
from ..suites.store import Store
from .rows import ReportRun


@dataclass(frozen=True)
class Links:
    """The addresses of a store's files, as seen from the folder that a report is written into.

    Attributes:
        store: The store.
        start: The report's folder.
    """

    store: Store
    start: Path

    def of(self, run: ReportRun) -> list[tuple[str, str]]:
        """Return what a run left, as ``(name, address)``: its receipt, its record and weights, where they exist."""
        return [(name, address) for name, path in self._files(run) if (address := self._address(path)) is not None]

    def _files(self, run: ReportRun) -> Iterator[tuple[str, Path]]:
        record, method = run.record, run.flat[0].method
        yield "receipt", self.store.path("receipts", record.key, ".md")
        yield "receipt (JSON)", self.store.path("receipts", record.key)
        yield "record", self.store.path("results", record.key)
        # A suite keeps the weights of what it trains; those of a revision come again with its seeds.
        role, name = (method, "model") if is_trained(method) else ("original", "model before")
        yield name, self.store.path("tensors", record.needs.get(role, ""), ".safetensors")

    def _address(self, path: Path) -> str | None:
        if not path.is_file():
            return None
        try:
            return quote(Path(os.path.relpath(path.resolve(), self.start.resolve())).as_posix())
        except ValueError:  # on another drive, from which nothing is relative
            return path.resolve().as_uri()
