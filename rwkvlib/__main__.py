"""``python -m rwkvlib doctor | train | sweep | evaluate | predict | report``: the command line, only its arguments."""

import argparse

from .commands import add_evaluate, add_predict, command_line


def _train(args: argparse.Namespace) -> None:
    from .engine.sweep import train_command

    train_command(args.config, args.settings, command_line())


def _sweep(args: argparse.Namespace) -> None:
    from .engine.sweep import sweep

    sweep(args.table, args.out, part=args.part, settings=args.settings)


def _report(args: argparse.Namespace) -> None:
    from .bookkit.report import write_report

    print(f"{len(write_report(args.out))} tables and figures in {args.out}")


def _doctor(args: argparse.Namespace) -> None:
    from .doctor import describe, examine
    from .provenance import as_json, write_result

    found = examine()
    if args.json == "-":
        print(as_json(found), end="")
    else:
        print(describe(found))
    if args.json not in (None, "-"):
        write_result(args.json, found)
    raise SystemExit(0 if found["ok"] else 1)


def main(argv: list[str] | None = None) -> None:
    """Runs one command; errors of input end it with their message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser("doctor", help="check this machine: versions, device, every backend against the oracle")
    p.set_defaults(run=_doctor)
    p.add_argument("--json", nargs="?", const="-", metavar="FILE", help="as JSON, or as text and JSON in a file")

    p = commands.add_parser("train", help="train by a recipe: configs/*.yaml")
    p.set_defaults(run=_train)
    p.add_argument("config", help="YAML file of the fields of rwkvlib.engine.config")
    p.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="out=FOLDER (required), resume=true or previous, stop_after=EPOCHS, and any field of the recipe: lr=1e-4, "
        "data=PATH, overrides.drop_path=0",
    )

    p = commands.add_parser("sweep", help="train and score a table of recipes and seeds; skips what is done")
    p.set_defaults(run=_sweep)
    p.add_argument("table", help="YAML file, see rwkvlib.engine.sweep")
    p.add_argument("settings", nargs="*", metavar="key=value", help="any field of the recipes, for every run")
    p.add_argument("--out", required=True, help="folder of the runs and their results")
    p.add_argument("--part", default="1/1", metavar="K/N", help="the Kth of each N runs, for N processes at a time")

    p = commands.add_parser("report", help="every table and figure of chapters 13 and 14, from results/ alone")
    p.set_defaults(run=_report)
    p.add_argument("--out", default="report", help="folder for them")

    add_evaluate(commands)
    add_predict(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        parser.exit(2, "".join(f"{line}\n" for line in (f"error: {error}", *getattr(error, "__notes__", ()))))


if __name__ == "__main__":
    main()
