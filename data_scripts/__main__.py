"""``python -m data_scripts list | info | prepare | audit | make_splits``: the command line."""

import argparse
import sys
import textwrap

from rwkvlib.commands import add_audit, plain_warnings
from rwkvlib.files import expand

from .registry import REGISTRY, find


def _list(args: argparse.Namespace) -> None:
    for entry in REGISTRY.values():
        how = "--download" if entry.downloads else "by hand"
        print(f"{entry.name:14}{entry.modality:48}{how:12}{entry.counts}")


def _info(args: argparse.Namespace) -> None:
    entry = find(args.name)
    lines = dict(
        title=entry.title,
        modality=entry.modality,
        classes=", ".join(f"{i} {name}" for i, name in enumerate(entry.classes, 1)),
        counts=entry.counts,
        licence=entry.licence,
        cite=entry.citation,
        page=entry.page,
        downloads="\n".join(entry.downloads) or "none",
        by_hand=entry.manual,
        layout=entry.layout,
        splits=entry.splits,
    )
    for key, text in lines.items():
        wrapped = [line for part in text.splitlines() for line in textwrap.wrap(part, 96, break_long_words=False)]
        print(f"{key.replace('_', ' '):12}" + ("\n" + " " * 12).join(wrapped))


def _prepare(args: argparse.Namespace) -> None:
    from .download import download
    from .prepare import prepare

    entry = find(args.name)
    if expand(args.out).exists():  # before hours of downloading
        raise FileExistsError(f"out: {args.out!r} exists; remove it, or choose another folder")
    if args.download:
        download(entry, args.raw)
    out = prepare(entry, args.raw, args.out, skip_bad=args.skip_bad, size=args.size)
    print((out / "dataset.json").read_text())
    if (out / "bad_items.csv").exists():
        print(f"left out: see {out / 'bad_items.csv'}", file=sys.stderr)


def _make_splits(args: argparse.Namespace) -> None:
    from .make_splits import make_splits

    for name, table in make_splits(args.only, args.data).items():
        print(name, table["split"].value_counts(sort=False).to_dict())


def main(argv: list[str] | None = None) -> None:
    """Runs one command; errors of input end it with their message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m data_scripts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser("list", help="the data sets, a line each")
    p.set_defaults(run=_list)

    p = commands.add_parser("info", help="licence, citation, where to get it, expected layout, splits")
    p.set_defaults(run=_info)
    p.add_argument("name")

    p = commands.add_parser("prepare", help="turn a raw download into images/, masks/ and items.csv")
    p.set_defaults(run=_prepare)
    p.add_argument("name")
    p.add_argument("--raw", required=True, help="folder of the unpacked official download")
    p.add_argument("--out", required=True, help="folder to create")
    p.add_argument("--download", action="store_true", help="fetch it into --raw first, where that is allowed")
    p.add_argument("--skip-bad", action="store_true", help="leave bad items out instead of stopping")
    p.add_argument("--size", type=int, help="height and width in pixels to resize to; default: as they are")

    add_audit(commands)

    p = commands.add_parser("make_splits", help="write the committed splits anew: splits/NAME.csv and SHA256SUMS")
    p.set_defaults(run=_make_splits)
    p.add_argument("--only", nargs="+", metavar="NAME", help="the sets to split; default: all")
    p.add_argument("--data", metavar="DIR", help="folder of NAME_256.zip, NAME.zip or NAME, where images are needed")

    args = parser.parse_args(argv)
    plain_warnings()
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
