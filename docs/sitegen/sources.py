"""The sources of the site in one folder: documents of the repository, and pages that the code gives."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import command, methods, modules, suites
from .links import FILES, MOVED, STUDIES, page_of, relink
from .marks import filled
from .nav import toctrees

NO_PAGES = shutil.ignore_patterns("*.py", "sitegen", "__pycache__", "*.md", "*.parquet", "*.pdf")


def lay_out(root: Path, out: Path) -> None:
    """Write every page of the site into ``out``, with what the pages show and link to.

    Args:
        root: The repository.
        out: An empty folder.

    Raises:
        ValueError: When a link of a page leads to nothing, or a section names a page that is not there.
    """
    shutil.copytree(root / "docs", out, ignore=NO_PAGES, dirs_exist_ok=True)
    shutil.copy(root / "docs" / "conf.py", out)
    folders = [root / "docs", *(root / folder for folder in STUDIES)]
    documents = [document for folder in folders for document in folder.rglob("*.md")]
    documents += [root / name for name in MOVED if name.endswith(".md")]
    texts = {}
    for document in documents:
        path = document.relative_to(root).as_posix()
        if path == "README.md":
            continue
        text, files = relink(filled(document.read_text(encoding="utf-8"), root), path, root)
        texts[page_of(path).removesuffix(".md")] = text
        for file in files:
            (out / FILES / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / file, out / FILES / file)
    made = {**methods.pages(), **modules.pages(), **command.pages(), **suites.pages(root)}
    texts |= made
    nested = [page for page in texts if page.startswith((f"{methods.INDEX}/", f"{modules.INDEX}/"))]
    ran = sorted(page for page in texts if page.startswith("suites/") and page != "suites/README")
    texts["suites/README"] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(f"/{page}" for page in ran) + "\n```\n"
    texts["index"] += "\n" + toctrees(sorted(texts), [*nested, *ran])
    for page, text in texts.items():
        (out / f"{page}.md").parent.mkdir(parents=True, exist_ok=True)
        (out / f"{page}.md").write_text(text, encoding="utf-8")
