"""Where nodes are worked on: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import importlib
import os
import pickle
from contextlib import suppress
from functools import lru_cache, partial
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Protocol

from unlearn_kit.errors import check_choice, check_count
from unlearn_kit.processes import Worker, settle_in, start_worker

from ..setup.devices import check_device
from .plan import Node
from .store import Store

if TYPE_CHECKING:
    from .execute import Finished, Product

BACKENDS = ("local", "ray")
LEAVING = 10  # seconds a worker without work is given to end


class Backend(Protocol):
    """Takes nodes whose needs are met, and tells what became of them."""

    def free(self) -> int:
        """How many more nodes it takes now."""
        ...

    def submit(self, node: Node) -> None:
        """Begin a node."""
        ...

    def wait(self, timeout: float) -> list[Finished]:
        """What ended since the last call; waits for at least one, but no longer than ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Stop everything at once."""
        ...


def check_backend(name: str, *, workers: int, threads: int, device: str = "cpu") -> None:
    """Refuse what no backend can be made of, or one that has no ``device`` to train on.

    Raises: ValueError, TypeError on an unknown name, a wrong number, or with "local" a device that is not there.
    """
    check_choice("backend", name, BACKENDS)
    check_count("workers", workers)
    check_count("threads", threads)
    if name == "local":
        check_device(device)


def make_backend(name: str, store: Store, *, workers: int, threads: int) -> Backend:
    """The backend ``name``.

    Raises: ValueError, TypeError on an unknown name or a wrong number; ImportError where ray is not installed.
    """
    check_backend(name, workers=workers, threads=threads)
    return Local(store, workers, threads) if name == "local" else OnRay(store, workers, threads)


class Local:
    """Worker processes that live as long as the run; one that dies takes one node with it and is replaced."""

    def __init__(self, store: Store, workers: int, threads: int) -> None:
        self.store, self.threads = store, threads
        self._idle = [self._start() for _ in range(workers)]
        self._busy: dict[connection.Connection, tuple[Worker, Node]] = {}

    def free(self) -> int:
        """How many workers wait."""
        return len(self._idle)

    def submit(self, node: Node) -> None:
        """Begin a node."""
        worker = self._idle.pop()
        # Before it is sent: a worker that is dead already is found when its end is waited for.
        self._busy[worker.pipe] = (worker, node)
        with suppress(OSError):
            _send(worker.pipe, node)

    def wait(self, timeout: float) -> list[Finished]:
        """What ended."""
        from .execute import Finished

        found = []
        for pipe in connection.wait(list(self._busy), timeout):
            worker, node = self._busy.pop(pipe)  # type: ignore[call-overload]
            try:
                found.append(_receive(worker.pipe))
                self._idle.append(worker)
            except (EOFError, OSError):
                reason = f"the worker process died ({worker.end()})"
                found.append(Finished(node.key, None, reason, f"{reason}\nwhile working on {node.name}\n"))
                worker.pipe.close()
                self._idle.append(self._start())
        return found

    def close(self) -> None:
        """Stop everything at once."""
        idle, busy = self._idle, [worker for worker, _ in self._busy.values()]
        self._idle, self._busy = [], {}
        for worker in busy:
            worker.process.kill()
        for worker in idle:  # at the end of its pipe a worker leaves by itself
            worker.pipe.close()
        for worker in (*idle, *busy):
            worker.process.join(LEAVING)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def _start(self) -> Worker:
        return start_worker(_work, str(self.store.root), self.threads, threads=self.threads)


def _send(pipe: connection.Connection, value: Any) -> None:
    # Pickled here, since torch would otherwise hand tensors over in shared memory that dies with the worker.
    pipe.send_bytes(pickle.dumps(value))


def _receive(pipe: connection.Connection) -> Any:
    return pickle.loads(pipe.recv_bytes())


def _work(pipe: connection.Connection, root: str, threads: int) -> None:
    """A worker's life: read a node, work, send, until the runner is gone."""
    settle_in(threads)
    from .execute import execute_safely, warm_up

    warm_up()
    store = Store(root, create=False)
    product = lru_cache(maxsize=16)(partial(stored_product, store))
    with suppress(EOFError, OSError):
        while True:
            node = _receive(pipe)
            _send(pipe, execute_safely(node, product))


def stored_product(store: Store, key: str) -> Product:
    """A finished node's product.

    Raises: ValueError when it is not, or no longer, there; CheckpointError when its tensors cannot be read.
    """
    from .execute import Product

    record = store.read(key)
    if record is None:
        raise ValueError(
            f"expected node {key!r} to be finished, but its record or its tensors are gone from {str(store.root)!r}; "
            "run the suite again, which makes them anew"
        )
    return Product(record, store.tensors(key) if record.tensors else {})


class OnRay:
    """The nodes as Ray tasks, on the cluster that ``RAY_ADDRESS`` names, else on one that is started on this machine.

    What they need and make travels through Ray's object store, so that machines need not share a folder.
    """

    def __init__(self, store: Store, workers: int, threads: int) -> None:
        try:
            self.ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ImportError("the ray backend needs Ray: pip install 'unlearn-kit[ray]'") from error
        self.store, self.workers, self.threads = store, workers, threads
        self._mine = not self.ray.is_initialized()
        if self._mine:
            here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers * threads}
            self.ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **here)
        self._task = self.ray.remote(num_cpus=threads, max_retries=0)(_on_ray)
        self._running: dict[Any, Node] = {}
        self._objects: dict[str, Any] = {}
        self._unread: list[Finished] = []

    def free(self) -> int:
        """How many workers wait."""
        return self.workers - len(self._running)

    def submit(self, node: Node) -> None:
        """Begin a node."""
        from .execute import failed

        try:
            for key in node.needs.values():
                if key not in self._objects:
                    self._objects[key] = self.ray.put(stored_product(self.store, key))
        except Exception as error:  # of this node alone, as if its worker had read them
            self._unread.append(failed(node, error))
            return
        needed = [self._objects[key] for key in node.needs.values()]
        self._running[self._task.remote(node, self.threads, *needed)] = node

    def wait(self, timeout: float) -> list[Finished]:
        """What ended."""
        from .execute import Finished

        if self._unread:
            found, self._unread = self._unread, []
            return found
        ended, _ = self.ray.wait(list(self._running), num_returns=1, timeout=timeout)
        found = []
        for reference in ended:
            node = self._running.pop(reference)
            try:
                found.append(self.ray.get(reference))
            except self.ray.exceptions.RayError as error:
                reason = f"the worker process died ({type(error).__name__})"
                found.append(Finished(node.key, None, reason, str(error)))
        return found

    def close(self) -> None:
        """Stop everything at once."""
        for reference in self._running:
            self.ray.cancel(reference, force=True)
        if self._mine:
            self.ray.shutdown()


def _on_ray(node: Node, threads: int, *products: Product) -> Finished:
    import torch

    from .execute import execute_safely

    torch.set_num_threads(threads)
    return execute_safely(node, dict(zip(node.needs.values(), products, strict=True)).__getitem__)
