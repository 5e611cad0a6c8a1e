"""Samples that belong together, such as the images of one patient, and how a request divides them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import check_choice
from .columns import Columns, quoted
from .tensors import resolve

# What a column of people is called, without what tells that it holds their numbers.
PEOPLE = ("patient", "subject", "participant", "person")
NUMBER = re.compile(r"[ _.-]?(id|nr|no|number)$")
GROUP = "group"  # in the ``attrs`` of a table: the column of groups that its reader was told
NAMED = 5  # groups that are named before the rest is counted
ADDED = 20  # groups or samples that a remedy lists


class Groups(NamedTuple):
    """To which group each training sample belongs.

    Attributes:
        name: What a group is: the column, or "group".
        values: The group of each sample, as text, ``(N,)``.
        missing: Which samples belong to none, ``(N,)``.
        column: Whether a table has them.
    """

    name: str
    values: np.ndarray[Any, Any]
    missing: np.ndarray[Any, Any]
    column: bool


@dataclass(frozen=True)
class Division:
    """How a request divides the groups of the training data.

    Attributes:
        name: What a group is, such as "patient".
        groups: Number of groups.
        touched: Number of groups of which a sample is to be forgotten.
        parted: The groups that are forgotten in part: their name, the samples to forget and those that stay.
        column: Whether a table has them.
        left: Positions of the training samples that stay though others of their group go.
    """

    name: str
    groups: int
    touched: int
    parted: tuple[tuple[str, int, int], ...]
    column: bool
    left: tuple[int, ...]

    @property
    def plural(self) -> str:
        """What the groups are called: "patients" of a column ``Patient_ID``."""
        return f"{NUMBER.sub('', self.name.lower())}s"

    @property
    def words(self) -> str:
        """How many groups are touched of how many: "10 of 40 patients"."""
        return f"{self.touched} of {self.groups} {self.plural}"

    def note(self) -> str:
        """Return what is to be known of groups that are forgotten in part, with the remedy; empty for none."""
        if not self.parted:
            return ""
        kept = sum(stay for _, _, stay in self.parted)
        named = ", ".join(f"{group!r} ({go} of {go + stay} images)" for group, go, stay in self.parted[:NAMED])
        more = f" and {len(self.parted) - NAMED} more" if len(self.parted) > NAMED else ""
        return (
            f"{self.name} forgotten in part: {named}{more}; {kept} other images of them stay in the data to keep. "
            f"To forget them whole: {self._remedy()}"
        )

    def _remedy(self) -> str:
        if not self.column:
            return f"add the other samples, at {_first([str(place) for place in self.left])}"
        values = [json.dumps(group, ensure_ascii=False) for group, _, _ in self.parted]
        if len(values) == 1:
            return f"{quoted(self.name)} == {values[0]}"
        return f"{quoted(self.name)} in ({_first(values)})"


def _first(words: Sequence[str]) -> str:
    return ", ".join([*words[:ADDED], "..."] if len(words) > ADDED else words)


def table_of(dataset: Any) -> Any:
    """Return the table that a data set keeps of its samples as ``.metadata`` (pandas), a row each; None without one."""
    base, indices = resolve(dataset)
    table: Any = getattr(base, "metadata", None)
    if not hasattr(table, "iloc") or len(table) != len(base):
        return None
    return table if indices is None else table.iloc[indices.numpy()]


def groups_of(
    dataset: Any, groups: str | Sequence[Any] | np.ndarray | Tensor | None, table: Any = None
) -> Groups | None:
    """Return to which group each sample belongs; None where nobody knows.

    Args:
        dataset: The samples.
        groups: A column of the table, or the group of each sample; None for the column that the reader of the table
            was told, or one that is called after people, such as ``patient_id``.
        table: A row for each sample; None for the table that the data set keeps.

    Raises:
        ValueError: When there is no such column, or there are not as many groups as samples.
    """
    if groups is not None and not isinstance(groups, str):
        values = np.asarray(groups)
        if values.shape != (len(dataset),):
            raise ValueError(f"expected groups to have one for each of {len(dataset)} samples, but got {values.shape}")
        return Groups("group", *Columns({"group": values}).text("group"), column=False)
    table = table_of(dataset) if table is None else table
    columns = None if table is None else Columns(table)
    if groups is None:
        name = None if columns is None else getattr(table, "attrs", {}).get(GROUP) or next(_people(columns.names), None)
    elif columns is None:
        raise ValueError(f"expected a table with the column {groups!r} for groups, but there is no table")
    else:
        name = check_choice("groups", groups, columns.names)
    return None if name is None or columns is None else Groups(name, *columns.text(name), column=True)


def shared(datasets: Mapping[str, Any]) -> str:
    """Return which groups are in the training data and in others as well, in words; empty for none.

    Args:
        datasets: By name, the training data first; those that keep no table are left out.
    """
    found = {name: groups_of(data, None) for name, data in datasets.items()}
    (first, own), *others = found.items()
    told = []
    for name, groups in others:
        if own is not None and groups is not None and groups.name == own.name:
            both = sorted(set(own.values[~own.missing]) & set(groups.values[~groups.missing]))
            more = f" and {len(both) - NAMED} more" if len(both) > NAMED else ""
            told += [f"{first} and {name} share {', '.join(map(repr, both[:NAMED]))}{more}"] if both else []
    if own is None or not told:
        return ""
    return f"{own.name} in two splits, which flatters: {'; '.join(told)}; held_out= with group= holds them out whole"


def _people(names: Sequence[str]) -> Iterator[str]:
    """Yield the columns that are called after people."""
    plain = {name: NUMBER.sub("", name.strip().lower()) for name in names}
    yield from (name for people in PEOPLE for name in names if plain[name] == people and names.count(name) == 1)


def divided(groups: Groups, selected: Tensor) -> Division:
    """Return how the training samples that are selected, bool ``(N,)``, divide the groups."""
    known = ~groups.missing
    names, place = np.unique(groups.values[known], return_inverse=True)
    going = selected.numpy()[known]
    go = np.bincount(place[going], minlength=len(names))
    stay = np.bincount(place[~going], minlength=len(names))
    parted = (go > 0) & (stay > 0)
    left = np.flatnonzero(known)[~going & parted[place]] if len(names) else np.empty(0, int)
    return Division(
        groups.name,
        len(names),
        int((go > 0).sum()),
        tuple((str(names[i]), int(go[i]), int(stay[i])) for i in np.flatnonzero(parted)),
        groups.column,
        tuple(left.tolist()),
    )
