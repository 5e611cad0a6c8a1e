"""The way into the command ``unlearn-kit``, which is in ``benchmarks``: first see that it is our ``benchmarks``.

Other projects have packages named ``algorithms`` and ``benchmarks`` too. One that Python finds before ours would end in
an ImportError about a name that the user never wrote. So the command enters through the core, whose name is its own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the command line, or leave with 1 when a package of another project stands in its place."""
    for name in ("algorithms", "benchmarks"):
        found = stranger(name)
        if found is not None:
            sys.exit(
                f"error: expected the package {name!r} in {HOUSE}, beside unlearn_kit, but Python finds {found}: "
                "take that folder off PYTHONPATH, or install unlearn-kit into an environment of its own"
            )
    # By name at run time: the core knows nothing above it.
    import_module("benchmarks.cli").main()


def stranger(name: str) -> str | None:
    """Return where Python finds the package ``name``, not loading it, when that is not beside the core; else None."""
    spec = find_spec(name)
    if spec is None:
        return None  # to import it says so itself
    places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
    return None if places[0].resolve() == HOUSE / name else str(places[0])
