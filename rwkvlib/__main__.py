"""``python -m rwkvlib doctor | train | pretrain | sweep | evaluate | predict | report``: the commands' arguments."""

import argparse
import shlex

from .commands import add_evaluate, add_predict, command_line, plain_warnings


def _train(args: argparse.Namespace) -> None:
    from .engine.sweep import train_command

    out = [] if args.out is None else [f"out={args.out}"]
    train_command(args.config, args.settings + out, command_line(), pretraining=args.command == "pretrain")


def _sweep(args: argparse.Namespace) -> None:
    from .engine.sweep import sweep

    try:
        sweep(args.table, args.out, part=args.part, settings=args.settings)
    except RuntimeError as error:  # after the other runs, of those that failed
        raise SystemExit(f"error: {error}") from error


def _report(args: argparse.Namespace) -> None:
    from .bookkit.report import write_report

    print(f"{len(write_report(args.out))} tables and figures in {args.out}")


def _doctor(args: argparse.Namespace) -> None:
    from .doctor import describe, examine
    from .provenance import to_json, write_result

    found = examine()
    if args.json == "-":
        print(to_json(found), end="")
    else:
        print(describe(found))
    if args.json not in (None, "-"):
        write_result(args.json, found)
    raise SystemExit(0 if found["ok"] else 1)


def _resume_line(args: argparse.Namespace) -> str:
    """What goes on with an interrupted command; "" for those that begin anew."""
    if args.run is _sweep:
        return f"; go on with: {command_line()}"
    if args.run is not _train:
        return ""
    from pathlib import Path

    from .engine.checkpoint import states

    out = args.out or dict(s.partition("=")[::2] for s in args.settings).get("out")
    if not states(Path(out).expanduser()):
        return " before the first checkpoint"
    rest = [s for s in args.settings if s.partition("=")[0] not in ("out", "resume")]
    line = shlex.join([args.config, *rest, f"out={out}", "resume=true"])
    return f"; go on with: python -m rwkvlib {args.command} {line}"


def main(argv: list[str] | None = None) -> None:
    """Runs one command; errors of input end it with their message and status 2, Ctrl-C with 130."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlib", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    p = commands.add_parser("doctor", help="check this machine: versions, device, every backend against the oracle")
    p.set_defaults(run=_doctor)
    p.add_argument("--json", nargs="?", const="-", metavar="FILE", help="as JSON, or as text and JSON in a file")

    for name, what in (
        ("train", "train by a recipe: configs/*.yaml"),
        ("pretrain", "pretrain an encoder by a recipe: configs/pretrain_*.yaml, by a teacher or as a classifier"),
    ):
        p = commands.add_parser(name, help=what)
        p.set_defaults(run=_train)
        p.add_argument("config", help="YAML file of the fields of rwkvlib.engine.config")
        p.add_argument(
            "settings",
            nargs="*",
            metavar="key=value",
            help="out=FOLDER (required, or --out FOLDER), resume=true or previous, stop_after=EPOCHS, and any field of "
            "the recipe: lr=1e-4, data=PATH, overrides.drop_path=0",
        )
        p.add_argument("--out", help="the run's folder, as out=FOLDER")

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
    args, rest = parser.parse_known_args(argv)
    # argparse takes no more positional arguments after an option, where a recipe's fields may stand all the same.
    if any(word.startswith("-") or "=" not in word for word in rest) or (rest and not hasattr(args, "settings")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.settings += rest
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        parser.exit(2, "".join(f"{line}\n" for line in (f"error: {error}", *getattr(error, "__notes__", ()))))
    except KeyboardInterrupt:
        parser.exit(130, f"interrupted{_resume_line(args)}\n")


if __name__ == "__main__":
    main()
