"""Builds the book: executes the notebooks, renders the pages, writes the plain edition."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import draw_map, executing, plain, quality, rendering
from .inputs import ROOT


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    html = commands.add_parser("html", help="render _build/html, or do nothing when nothing has changed")
    html.add_argument("--root", type=Path, default=ROOT, help="the folder with _config.yml (default: this project)")
    html.add_argument("--no-assets", action="store_true", help="do not fetch the pages' scripts")
    commands.add_parser("execute", help="execute the notebooks into the cache that html and the tests read")
    nb = commands.add_parser("notebooks", help="execute notebooks in place, to be committed with outputs")
    nb.add_argument("paths", nargs="*", type=Path, help="default: all in notebooks/")
    edition = commands.add_parser("plain", help="write notebooks/plain/, the edition for Colab and Jupyter")
    edition.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    commands.add_parser("quality", help="measure the built book into results/book/quality.json")
    commands.add_parser("map", help="draw the map of the welcome page and the icon")
    commands.add_parser("links", help="follow the links to other sites and report the dead ones")
    server = commands.add_parser("serve", help="serve the built book on this machine")
    server.add_argument("--port", type=int, default=8000)
    args = parser.parse_args(argv)
    if args.command == "html":
        return rendering.build_html(args.root.resolve(), assets=not args.no_assets)
    if args.command == "execute":
        executing.execute_ahead()
        return 0
    if args.command == "notebooks":
        return executing.execute_notebooks(args.paths or sorted((ROOT / "notebooks").glob("*.ipynb")))
    if args.command == "plain":
        return plain.write(check=args.check)
    if args.command == "serve":
        return rendering.serve(port=args.port)
    return {"quality": quality.main, "map": draw_map.main, "links": rendering.check_links}[args.command]()


if __name__ == "__main__":
    sys.exit(main())
