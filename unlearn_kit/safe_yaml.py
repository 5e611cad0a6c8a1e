"""The one reader of YAML: plain values of a bounded size, and one error for everything else.

A few lines of YAML can stand for billions of values, or name types whose construction fails anywhere. So nodes, depth
and lengths are counted while the text is read, an alias as often as it is used, before any value is made.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import check_path_exists

# Bounds far above what a file that somebody wrote by hand needs.
MAX_LENGTH = 200_000  # characters of a text
MAX_VALUES = 10_000  # aliases count as often as they are used
MAX_DEPTH = 32
MAX_TEXT = 10_000  # characters of one key or value


def read_yaml(path: str | Path, name: str = "path") -> Any:
    """Return the values in a YAML file.

    Args:
        path: The file, in UTF-8.
        name: What the path is called in the error on a missing file.

    Raises:
        FileNotFoundError: When there is no file.
        ValueError: As :func:`parse_yaml`, naming the file.
    """
    source = check_path_exists(name, path)
    try:
        with source.open(encoding="utf-8") as file:
            text = file.read(MAX_LENGTH + 1)
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"expected {source} to be YAML, but got: {error}") from error
    return parse_yaml(text, str(source))


def parse_yaml(text: str, source: str) -> Any:
    """Return the values in a YAML text: numbers, texts, dates, true, false, null, and lists and mappings of them.

    Args:
        text: The text of one document.
        source: What holds the text, for errors.

    Raises:
        ValueError: When it is no such YAML, a key comes twice or a bound is passed, naming the source and the key.
    """
    loader = None
    try:
        loader = _loader_class()(text[:MAX_LENGTH], source)
        values = loader.get_single_data()
    except _Refused as error:
        raise ValueError(f"{source}: {error.where}: {error}") from None
    except Exception as error:  # The library has errors of many types for a value under a tag that it cannot have.
        mark = getattr(error, "problem_mark", None)
        where = "the start" if loader is None else loader.place(None if mark is None else mark.index)
        if len(text) > MAX_LENGTH:  # Where it is cut off it may well be wrong.
            raise ValueError(f"{source}: {where}: expected at most {MAX_LENGTH} characters, but got more") from None
        raise ValueError(f"expected {source} to be YAML, but got at {where}: {error}") from error
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{source}: expected at most {MAX_LENGTH} characters, but got more")
    return values


def check_plain(value: Any, source: str) -> None:
    """Hold values that did not come from YAML against the same bounds; one that holds itself has no end.

    Raises:
        ValueError: When a bound is passed, naming the source and the key.
    """
    open_: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    count = 0
    while open_:
        path, item = open_.pop()
        count += 1
        try:
            _check_bounds(path, count, item if isinstance(item, str) else "")
            if isinstance(item, Mapping):
                for key in item:
                    _check_bounds((*path, str(key)[:MAX_TEXT]), count, key if isinstance(key, str) else "")
                _check_bounds(path, count + len(item), "")
                open_ += [((*path, key), inner) for key, inner in item.items()]
            elif isinstance(item, (list, tuple)):
                _check_bounds(path, count + len(item), "")
                open_ += [((*path, place), inner) for place, inner in enumerate(item)]
        except _Refused as error:
            raise ValueError(f"{source}: {error.where}: {error}") from None


class _Refused(Exception):  # noqa: N818
    """What is wrong at a place in the text."""

    def __init__(self, path: Any, text: str) -> None:
        super().__init__(text)
        self.where = _written(path)


def _written(path: Any) -> str:
    """Return the place that a path of keys leads to as people write it."""
    keys = [text if len(text) <= 100 else f"{text[:100]}..." for text in map(str, path)]
    if len(keys) > 8:
        keys = [*keys[:8], "..."]
    return ".".join(keys) or "the whole file"


def _check_bounds(path: Any, count: int, text: str, *, depth: int | None = None) -> None:
    if count > MAX_VALUES:
        raise _Refused(path, f"expected at most {MAX_VALUES} values, each as often as it is used, but got more")
    if (len(path) if depth is None else depth) > MAX_DEPTH:
        raise _Refused(path, f"expected at most {MAX_DEPTH} levels, one in another, but got more")
    if len(text) > MAX_TEXT:
        raise _Refused(path, f"expected a text of at most {MAX_TEXT} characters, but got {len(text)}")


@functools.cache
def _loader_class() -> Any:
    """Return YAML's safe loader with bounds, which also refuses a key that comes twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, text: str, source: str) -> None:
            self.path: list[Any] = []
            # Nodes read so far, and the deepest level of them under the node in hand.
            self.count = self.deepest = 0
            # Nodes, and levels below, of each node that is read whole; and where what starts at a character stands.
            self.sizes: dict[Any, tuple[int, int]] = {}
            self.places: dict[int, str] = {}
            super().__init__(text)
            self.name = source

        def place(self, start: int | None) -> str:
            """Return where the node that starts at a character stands, or else the place in hand."""
            return self.places.get(-1 if start is None else start, _written(self.path))

        def compose_node(self, parent: Any, index: Any) -> Any:
            if parent is not None:
                self.path.append(getattr(index, "value", "a key" if index is None else index))
            alias = self.check_event(yaml.AliasEvent)
            before, outer, level = self.count, self.deepest, len(self.path)
            self.count, self.deepest = before + 1, level
            _check_bounds(self.path, self.count, "")
            node = super().compose_node(parent, index)
            if alias:
                if node not in self.sizes:
                    raise _Refused(self.path, "expected values, but got an alias of what it stands in")
                self.count, self.deepest = before + self.sizes[node][0], level + self.sizes[node][1]
                _check_bounds(self.path, self.count, "", depth=self.deepest)
            else:
                self.sizes[node] = self.count - before, self.deepest - level
                self.places[node.start_mark.index] = _written(self.path)
                _check_bounds(self.path, self.count, node.value if isinstance(node, yaml.ScalarNode) else "")
            self.deepest = max(outer, self.deepest)
            if parent is not None:
                self.path.pop()
            return node

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _Refused(self.path, f"expected keys that are texts or numbers, but got a {key.id}")
                found = self.construct_object(key) if key.tag != "tag:yaml.org,2002:merge" else "<<"
                if found in seen:
                    raise _Refused(self.path, f"the key {found!r} comes more than once")
                seen.add(found)
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            made = None
            try:
                made = super().construct_object(node, deep)
            except (_Refused, yaml.YAMLError):
                raise
            except Exception as error:  # A value that is none of the type that its tag names.
                raise self._wrong(node) from error
            if isinstance(made, int) and abs(made) > sys.float_info.max:
                raise self._wrong(node)
            return made

        def _wrong(self, node: Any) -> _Refused:
            written = node.value[:100] if isinstance(node, yaml.ScalarNode) else node.id
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            return _Refused(
                [self.place(node.start_mark.index)], f"expected a value of type {kind}, but got {written!r}"
            )

    return Loader
