"""SISA: a model of shards, each trained on its own part of the data, so that a request trains its part alone again.

The data are cut into shards, each shard into slices. One network a shard is trained slice by slice, its weights kept
after each: first on slice 1, then on 1 and 2, and so on. A request goes back, in the shards that hold its samples, to
the weights from before the first slice that does, and trains on from there without them. What a sample has touched is
then gone, bit for bit: the system is the one that would have been trained without it, with the same seeds.

Networks are any; where ``build`` returns a frozen network with an adapter (``adapters.attach``), the shards are small,
and ``aggregate="merge"`` adds the mean of their updates to one network, which costs one forward pass to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..adapters import adapter_names
from ..arguments import Count, checked
from ..data.checks import check_dataset
from ..data.findings import holds_rows
from ..data.tensors import subset
from ..engine import fit, supervised_phase
from ..modules import built
from ..seeding import derive, generator, isolated, standardized
from .adapters import join_requests, weigh
from .ensemble import ShardEnsemble

Aggregate = Literal["mean", "vote", "merge"]
Slices = tuple[Tensor, ...]
States = tuple[dict[str, Tensor], ...]


@dataclass(frozen=True, eq=False)
class ShardTraining:
    """How a shard is trained; the same for all of them, for ever."""

    build: Callable[[], nn.Module]
    dataset: Any
    aggregate: Aggregate
    epochs: int
    seed: int
    device: torch.device | str | None
    options: Mapping[str, Any]

    def member(self, shard: int, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Return a shard's network, with its first weights or with those of ``state``."""
        with isolated(derive(self.seed, "sisa weights", shard)):
            network = built(self.build)
        if state is not None:
            network.load_state_dict(state, strict=False)
        return network

    def trained(self, shard: int, slices: Slices, kept: States = ()) -> States:
        """Return what ``slices`` make of a shard after each of them; the first ``len(kept)`` are known."""
        states = list(kept)
        for stage in range(len(kept), len(slices)):
            start = self.member(shard, states[-1] if states else None)
            seen = torch.cat(slices[: stage + 1])
            if len(seen):
                phase = supervised_phase(subset(self.dataset, seen), epochs=self.epochs, **self.options)
                if self.aggregate == "merge":  # One network has one set of statistics.
                    phase = replace(phase, batch_norm="frozen")
                seed = derive(self.seed, "sisa", shard, stage)
                start = fit(start, phase, seed=seed, device=self.device).model
            states.append(_moving(start))
        return tuple(states)

    def aggregated(self, slices: Sequence[Slices], states: Sequence[States]) -> nn.Module:
        """Return the shards that hold data as one model, in eval mode."""
        held = [shard for shard, own in enumerate(slices) if any(len(one) for one in own)]
        if not held:
            raise ValueError("expected indices to leave data in a shard, but they are all there is")
        members = {f"shard{shard}": self.member(shard, states[shard][-1]).eval() for shard in held}
        if self.aggregate == "merge":
            return weigh(join_requests(members), dict.fromkeys(members, 1 / len(members))).eval()
        return ShardEnsemble(list(members.values()), self.aggregate, apart=holds_rows(self.dataset)).eval()


@dataclass(frozen=True, eq=False)
class Sisa:
    """A system of shards, as :func:`sisa_train` and :func:`sisa_forget` return it.

    Attributes:
        model: What is served: all shards that hold data as one model, in eval mode.
        slices: By shard, by slice: the positions in the data set that it is trained on.
        states: By shard: what trained, and buffers, after each slice, on the CPU.
        retrained: By shard that was trained in making this: how many of its slices it went through.
        share: Samples read in making this, of those that training all shards anew reads, in [0, 1].
        recipe: How it was trained, which every request repeats.
    """

    model: nn.Module
    slices: tuple[Slices, ...]
    states: tuple[States, ...] = field(repr=False)
    retrained: Mapping[int, int]
    share: float
    recipe: ShardTraining = field(repr=False)


@checked
@standardized
def sisa_train(
    build: Callable[[], nn.Module],
    dataset: Any,
    *,
    shards: Count = 5,
    slices: Count = 1,
    aggregate: Aggregate = "mean",
    epochs: Count = 5,
    without: Sequence[int] | Tensor = (),
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Any,
) -> Sisa:
    """Train a network on each shard of the data, slice by slice, and return them as one model.

    Which sample goes where is drawn from ``seed`` and its position alone: never from what the data are, or a request
    would change the place of others. Fewer samples a shard make cheaper requests, and weaker networks.

    Args:
        build: Makes a network with fresh weights; for "merge" the same frozen network with a fresh adapter each time.
        dataset: Map-style, of ``(input, target)``.
        shards: How many networks there are, each with its part of the data.
        slices: How many parts of a shard come one after another. Training reads (slices + 1) / 2 times as much.
        aggregate: "mean" of their probabilities, "vote", or "merge": the mean of the adapters' updates (in sum the
            original and ``sum dW_i / shards``), with batch norm frozen.
        epochs: Passes over the slices so far, after each is added.
        without: Positions of samples to leave out, where a system is wanted that never saw them.
        seed: Of the cut, of fresh weights and of training, of each shard and slice by itself.
        device: Where it is trained.
        **options: As of ``engine.supervised_phase``: ``batch_size``, ``lr``, ``optimizer``, ``objective`` and others.

    Raises:
        ValueError: When the data are fewer than slices, a position is none of theirs, or as training does.
        TypeError: When ``build`` makes no module, for "merge" without adapters, or as training does.

    Source: Bourtoule et al. 2021, arXiv 1912.03817.
    """
    check_dataset("dataset", dataset, empty=False)
    if len(dataset) < shards * slices:
        raise ValueError(
            f"expected shards * slices to be at most the {len(dataset)} samples of dataset, but got {shards * slices}"
        )
    recipe = ShardTraining(build, dataset, aggregate, epochs, seed, device, options)
    if aggregate == "merge":
        adapter_names(recipe.member(0))
    order = torch.randperm(len(dataset), generator=generator(seed, "shards"))
    cut = tuple(tuple(one.sort().values for one in own.tensor_split(slices)) for own in order.tensor_split(shards))
    cut = _without(cut, _positions("without", without, cut))
    states = tuple(recipe.trained(shard, own) for shard, own in enumerate(cut))
    return Sisa(recipe.aggregated(cut, states), cut, states, dict.fromkeys(range(shards), slices), 1.0, recipe)


@checked
@standardized
def sisa_forget(system: Sisa, indices: Sequence[int] | Tensor, *, drop: bool = False) -> Sisa:
    """Return the system as it would be had it been trained without these samples, bit for bit.

    Shards that hold none of them stay as they are. One that holds some goes back to what it was before the first slice
    with one of them, and trains on without. The system that is given stays as it was: it still knows them, and is to be
    deleted.

    Args:
        system: Of :func:`sisa_train`, or of an earlier request.
        indices: Positions of the samples in the data set, such as ``task.forget_indices``.
        drop: Whether the touched shards are left out of service, with all of their data, rather than trained again: a
            request is then served at once, and the system is the one trained without these shards.

    Raises:
        ValueError: When a position is none of what the shards hold, or nothing is left.
        TypeError: When positions are no ints.
    """
    recipe, gone = system.recipe, _positions("indices", indices, system.slices)
    if not gone:
        raise ValueError("expected indices to hold at least one position, but got none")
    first = {
        shard: stage
        for shard, own in enumerate(system.slices)
        if (stage := next((k for k, one in enumerate(own) if gone.intersection(one.tolist())), None)) is not None
    }
    if drop:
        first = dict.fromkeys(first, 0)
        gone |= {i for shard in first for one in system.slices[shard] for i in one.tolist()}
    slices, states = _without(system.slices, gone), list(system.states)
    for shard, stage in first.items():
        states[shard] = recipe.trained(shard, slices[shard], system.states[shard][:stage])
    made, retrained = tuple(states), {shard: len(slices[shard]) - stage for shard, stage in first.items()}
    read = sum(_read(slices[shard], stage) for shard, stage in first.items())
    share = read / sum(_read(own) for own in slices) if read else 0.0
    return Sisa(recipe.aggregated(slices, made), slices, made, {} if drop else retrained, share, recipe)


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters that train and of all buffers, on the CPU."""
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items() if name not in still}


def _positions(name: str, given: Sequence[int] | Tensor, slices: Sequence[Slices]) -> set[int]:
    """Return positions as a set, all of which some shard holds."""
    chosen = torch.as_tensor(given if isinstance(given, Tensor) else list(given))
    if chosen.dim() != 1 or (len(chosen) and (chosen.is_floating_point() or chosen.dtype == torch.bool)):
        raise TypeError(
            f"expected {name} to be positions, a list of ints, but got {chosen.dtype} {tuple(chosen.shape)}"
        )
    asked = {int(i) for i in chosen}
    unknown = sorted(asked.difference(*(one.tolist() for own in slices for one in own))) if asked else []
    if unknown:
        raise ValueError(f"expected {name} to be positions that a shard holds, but got {unknown[:5]}")
    return asked


def _without(slices: Sequence[Slices], gone: set[int]) -> tuple[Slices, ...]:
    out = torch.tensor(sorted(gone), dtype=torch.int64)
    return tuple(tuple(one[~torch.isin(one, out)] for one in own) for own in slices)


def _read(slices: Slices, stage: int = 0) -> int:
    """Return how many samples training reads from a stage on, in passes of each."""
    sizes = [len(one) for one in slices]
    return sum(sum(sizes[: k + 1]) for k in range(stage, len(sizes)))
