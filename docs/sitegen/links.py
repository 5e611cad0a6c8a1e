"""Links of a page that is moved from the repository into the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

# Documents outside docs/, and the pages that they become.
MOVED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "start.md",
    "proofs_notebooks/README.md": "proofs.md",
    "docs/suites": "suites/README.md",
}
# What studies wrote, and where it stands in the site.
STUDIES = {"benchmarks/results/": "measured/"}
FILES = "files"  # where what is no page is copied to, to be downloaded
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def page_of(path: str) -> str:
    """Return the page that a document of the repository becomes, from the root of the site."""
    for folder, to in STUDIES.items():
        path = to + path.removeprefix(folder) if path.startswith(folder) else path
    return MOVED.get(path, path.removeprefix("docs/"))


def relink(text: str, document: str, root: Path) -> tuple[str, set[str]]:
    """Return ``text`` with its links rewritten for the site, and the files it links to that are no pages.

    Args:
        text: Of a document in Markdown.
        document: Its path in the repository.
        root: The repository.

    Raises:
        ValueError: When a link leads to nothing.
    """
    files = set()
    here = posixpath.dirname(page_of(document))

    def rewrite(match: re.Match[str]) -> str:
        target = match[2]
        if re.match(r"[a-z]+:", target) or target.startswith("<"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        if path in MOVED or (path.startswith(("docs/", *STUDIES)) and path.endswith(".md")):
            to = page_of(path)
        elif path.startswith("docs/") and (root / path).is_file():
            to = path.removeprefix("docs/")  # copied with the pages
        elif (root / path).is_dir() and (root / path / "README.md").is_file():
            to = page_of(f"{path}/README.md")
        elif (root / path).is_file():
            files.add(path)
            to = f"{FILES}/{path}"
        else:
            raise ValueError(f"{document}: expected a link to lead somewhere, but got {target!r}")
        return f"{match[1]}{posixpath.relpath(to, here or '.')}{match[3]}"

    return LINK.sub(rewrite, text), files
