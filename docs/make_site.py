"""Build the site: ``python docs/make_site.py OUT``; with ``--serve`` it is shown on this machine alone."""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
import tempfile
from pathlib import Path

from sitegen.sources import lay_out

ROOT = Path(__file__).resolve().parents[1]


def build(out: Path) -> None:
    """Build the site into ``out``; leave with the number of Sphinx where anything was worth a warning."""
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder)
        lay_out(ROOT, sources)
        code = build_main(["-b", "html", "-W", "--keep-going", "-q", "-d", f"{folder}/.doctrees", folder, str(out)])
    if code:
        sys.exit(code)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--serve", type=int, metavar="PORT")
    given = parser.parse_args()
    build(given.out)
    if given.serve is not None:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(given.out))
        with http.server.ThreadingHTTPServer(("127.0.0.1", given.serve), handler) as server:
            print(f"http://127.0.0.1:{server.server_port}/", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main()
