"""A model as it serves: architecture, weights and normalisation together."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..arguments import checked
from ..data.bundle import DataBundle
from ..models.normalization import as_list, with_normalization
from ..modules import check_model
from .networks import Network, Normalization, build_network
from .weights import FittedWeights, fit_weights, load_into, read_weights


@dataclass(frozen=True)
class Deployed:
    """A model as it serves, ready to be revised.

    Attributes:
        model: The network with its weights, on raw pixels in [0, 1]; its modes as it came.
        network: The architecture, by its source.
        weights: How the file belongs to it; None for a Hugging Face folder, which holds its own.
        normalization: What is done to pixels first, and who says so; None for nothing.
    """

    model: nn.Module
    network: Network
    weights: FittedWeights | None
    normalization: Normalization | None

    def with_weights(self, path: str | Path) -> nn.Module:
        """Return another model of the same architecture and normalisation, with the weights of ``path``.

        Raises:
            CheckpointError: When the file does not fit the architecture.
            FileNotFoundError: When there is none.
        """
        model = copy.deepcopy(self.model)
        network = model if self.normalization is None else model.get_submodule("network")
        load_into(fit_weights(read_weights(path), network), network)
        return model

    @property
    def words(self) -> list[str]:
        """Return how the model was read, for people."""
        options = ", ".join(f"{name}={value}" for name, value in self.network.options.items())
        said = [f"Model: {self.network.source}" + (f" ({options})" if options else "")]
        if self.weights is not None:
            file = self.weights.file
            under = f", under {'.'.join(file.key)!r}" if file.key else ""
            off = f"; {self.weights.stripped} stands before the names there" if self.weights.stripped else ""
            beside = (
                f"; beside the model, and left as it was: {list(self.weights.beside)}" if self.weights.beside else ""
            )
            said.append(f"Weights: {file.path.name} ({file.form}{under}){off}{beside}")
        if self.normalization is None:
            said.append("Pixels in [0, 1] are given to the model as they are")
        else:
            mean, std = self.normalization.mean, self.normalization.std
            said.append(
                f"Pixels in [0, 1] are normalised by mean {list(mean)}, std {list(std)} ({self.normalization.source})"
            )
        return said


@checked
def deployed(
    model: str,
    weights: str | Path | None,
    data: DataBundle,
    *,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    normalize: bool = True,
) -> Deployed:
    """Read a model as it serves.

    Args:
        model: The architecture, see :func:`.networks.build_network`.
        weights: The file of its weights; None for ``hf:FOLDER``, which holds them.
        data: Its data: the number of classes and of channels are taken from there, unless ``options`` say them.
        options: Of the architecture.
        key: Where a training checkpoint keeps the weights, when it cannot be found by itself.
        mean, std: What pixels in [0, 1] are normalised by; the library's own configuration otherwise.
        normalize: False where the model takes pixels in [0, 1] as they are.

    Raises:
        ValueError: On a source, options or numbers that do not fit, or one of ``mean`` and ``std`` alone.
        TypeError: When ``weights`` are missing.
        CheckpointError: When the file does not fit the architecture.
        ImportError: When a library is not installed.
    """
    if (mean is None) != (std is None):
        raise ValueError("expected mean and std together, but got one of them alone")
    folder_of_hf = str(model).startswith("hf:")
    if (weights is None) != folder_of_hf:
        raise TypeError(
            "expected weights to be None for hf:FOLDER, which holds them, but got a file"
            if folder_of_hf
            else "expected weights to be the file of the model's weights, but got None"
        )
    channels = int(data.train[0][0].shape[0])
    network = build_network(model, options, num_classes=data.num_classes, channels=channels)
    fitted = None
    if weights is not None:
        fitted = fit_weights(read_weights(weights, key=key), network.model)
        load_into(fitted, network.model)
    check_model(network.model)
    said = network.normalization if normalize else None
    if mean is not None and std is not None:
        said = Normalization(_listed("mean", mean), _listed("std", std), "as given")
    served = network.model if said is None else with_normalization(network.model, said.mean, said.std)
    return Deployed(served.eval(), network, fitted, said)


def _listed(name: str, values: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in as_list(name, values))
