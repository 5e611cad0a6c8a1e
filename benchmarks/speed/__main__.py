"""``python -m benchmarks.speed NAME [OPTIONS]``: one of the measurements of this folder; without a name, a list."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path


def names() -> dict[str, str]:
    """Return the measurements, with the first line of what each says of itself."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(part, ast.FunctionDef) and part.name == "main" for part in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main() -> int:
    """Run the measurement that is named, with the options that follow."""
    known = names()
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        print(
            "python -m benchmarks.speed NAME [OPTIONS]",
            *(f"  {name}: {said}" for name, said in known.items()),
            sep="\n",
        )
        return 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"benchmarks.speed {name}"
    return importlib.import_module(f"benchmarks.speed.{name}").main() or 0


if __name__ == "__main__":
    sys.exit(main())
