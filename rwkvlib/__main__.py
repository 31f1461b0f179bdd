"""``python -m rwkvlib train | sweep | evaluate | predict | report``: the command line, which only reads arguments."""

import argparse

from .commands import add_evaluate, add_predict, command_line, plain_warnings


def _train(args: argparse.Namespace) -> None:
    from .engine.sweep import train_command

    train_command(args.config, args.settings, command_line())


def _sweep(args: argparse.Namespace) -> None:
    from .engine.sweep import sweep

    sweep(args.table, args.out, part=args.part, settings=args.settings)


def _report(args: argparse.Namespace) -> None:
    from .bookkit.report import write_report

    print(f"{len(write_report(args.out))} tables and figures in {args.out}")


def main(argv: list[str] | None = None) -> None:
    """Runs one command; errors of input end it with their message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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

    plain_warnings()
    add_evaluate(commands)
    add_predict(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
