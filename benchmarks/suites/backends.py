"""Where nodes are worked on: processes of this machine, or a Ray cluster.

On the device "cuda" runs are spread over all visible GPUs: each local worker keeps to one of them, in turn, and each
Ray task asks for a whole one, or for as much as it is given. "cuda:1" is that GPU for every local worker; Ray gives
devices out itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from unlearn_kit.errors import check_choice, check_count, check_number
from unlearn_kit.processes import Pool, WorkerDiedError

from ..setup.devices import check_device, is_any_gpu
from .afterwards import descendants, watch_over_children
from .plan import Node
from .store import Store

if TYPE_CHECKING:
    from .execute import Finished, Product

BACKENDS = ("local", "ray")


class Backend(Protocol):
    """Takes nodes whose needs are met, and tells what became of them."""

    def free(self) -> int:
        """Return how many more nodes it takes now."""
        ...

    def submit(self, node: Node) -> None:
        """Begin a node."""
        ...

    def wait(self, timeout: float) -> list[Finished]:
        """Return what ended since the last call; wait for at least one, but no longer than ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Stop everything at once."""
        ...


def check_backend(name: str, *, workers: int, threads: int, device: str = "cpu", gpus: float = 1.0) -> None:
    """Refuse what no backend can be made of, or one that has no ``device`` to train on.

    Raises:
        ValueError: On an unknown name, a wrong number, a device that this machine has not where the work is done on it,
            or with "ray" a GPU by its number.
        TypeError: On a number that is none.
    """
    check_choice("backend", name, BACKENDS)
    check_count("workers", workers)
    check_count("threads", threads)
    check_number("gpus", gpus, low=0, open_low=True)
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"expected gpus to be a share of one or a whole number of them, but got {gpus!r}")
    if gpus != 1 and (name != "ray" or not is_any_gpu(device)):
        raise ValueError(
            f"expected gpus with backend='ray' and device='cuda' alone, but got {gpus!r} with {name!r} and {device!r}; "
            "local workers share the GPUs that there are"
        )
    if name == "ray" and torch.device(device).type == "cuda" and not is_any_gpu(device):
        raise ValueError(f"expected device to be cuda with ray, which chooses the GPU of each run, but got {device!r}")
    if name == "local" or _ray_is_here():
        check_device(device)


def _ray_is_here() -> bool:
    """Return whether Ray would be started on this machine alone, rather than joined."""
    ray = sys.modules.get("ray")
    return not os.environ.get("RAY_ADDRESS") and (ray is None or not ray.is_initialized())


def make_backend(name: str, store: Store, *, workers: int, threads: int, gpus: float = 1.0) -> Backend:
    """Return the backend ``name``.

    Raises:
        ValueError: On an unknown name or a wrong number.
        TypeError: On a number that is none.
        ImportError: Where ray is not installed.
    """
    check_backend(name, workers=workers, threads=threads)
    return Local(store, workers, threads) if name == "local" else OnRay(store, workers, threads, gpus)


class Local:
    """Worker processes that live as long as the run; one that dies takes one node with it and is replaced."""

    def __init__(self, store: Store, workers: int, threads: int) -> None:
        self._pool = Pool(str(store.root), workers, threads=threads, prepare=_Here)
        self._nodes: dict[int, Node] = {}

    def free(self) -> int:
        """Return how many workers wait."""
        return self._pool.free()

    def submit(self, node: Node) -> None:
        """Begin a node."""
        self._nodes[self._pool.submit(_Here.work, node)] = node

    def wait(self, timeout: float) -> list[Finished]:
        """Return what ended."""
        found = []
        for job, finished, error in self._pool.wait(timeout):
            node = self._nodes.pop(job)
            found.append(finished if error is None else _failed(node, error))
        return found

    def close(self) -> None:
        """Stop everything at once."""
        self._pool.close()


class _Here:
    """What a worker process of this machine works with: the store, what it read last, and its place."""

    def __init__(self, root: str, place: int) -> None:
        from .execute import warm_up

        warm_up()
        self.product = lru_cache(maxsize=16)(partial(stored_product, Store(root, create=False)))
        self.place = place

    def work(self, node: Node) -> Finished:
        from .execute import execute_safely

        return execute_safely(node, self.product, self.place)


def _failed(node: Node, error: Exception) -> Finished:
    from .execute import Finished, failed

    if not isinstance(error, WorkerDiedError):
        return failed(node, error)
    return Finished(node.key, None, str(error), f"{error}\nwhile working on {node.name}\n", died=True)


def stored_product(store: Store, key: str) -> Product:
    """Return a finished node's product.

    Raises:
        ValueError: When it is not, or no longer, there.
        CheckpointError: When its tensors cannot be read.
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

    def __init__(self, store: Store, workers: int, threads: int, gpus: float = 1.0) -> None:
        try:
            self.ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ImportError("the ray backend needs Ray: pip install 'unlearn-kit[ray]'") from error
        self.store, self.workers, self.threads, self.gpus = store, workers, threads, gpus
        self._mine, local, before = not self.ray.is_initialized(), False, frozenset[str]()
        if self._mine:
            local = _ray_is_here()
            before = descendants() if local else frozenset()
            here = {"address": "local", "num_cpus": workers * threads} if local else {}
            self.ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **here)
        # A cluster that is started here dies with this process, but for its agents.
        self._guard = watch_over_children(before) if local else None
        self._task = self.ray.remote(num_cpus=threads, max_retries=0)(_on_ray)
        self._running: dict[Any, Node] = {}
        self._objects: dict[str, Any] = {}
        self._unread: list[Finished] = []

    def free(self) -> int:
        """Return how many workers wait."""
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
        # A task that asks for no GPU is shown none, and one that does is shown its own alone, or the one it shares.
        task = self._task.options(num_gpus=self.gpus if is_any_gpu(node.config["device"]) else 0)
        self._running[task.remote(node, self.threads, *needed)] = node

    def wait(self, timeout: float) -> list[Finished]:
        """Return what ended."""
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
                reason = f"a worker process died ({type(error).__name__})"
                found.append(Finished(node.key, None, reason, str(error), died=True))
        return found

    def close(self) -> None:
        """Stop everything at once."""
        for reference in self._running:
            self.ray.cancel(reference, force=True)
        if self._mine:
            self.ray.shutdown()
        if self._guard is not None:
            self._guard.communicate()


def _on_ray(node: Node, threads: int, *products: Product) -> Finished:
    from .execute import execute_safely

    torch.set_num_threads(threads)
    return execute_safely(node, dict(zip(node.needs.values(), products, strict=True)).__getitem__)
