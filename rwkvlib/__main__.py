"""``rwkvlib import | split | audit | init | train | pretrain | sweep | threshold | evaluate | predict | export |
report | doctor``, or ``python -m rwkvlib``: one command and its end."""

import argparse

from .commands import (
    add_audit,
    add_doctor,
    add_evaluate,
    add_export,
    add_import,
    add_init,
    add_predict,
    add_report,
    add_split,
    add_sweep,
    add_threshold,
    add_train,
    plain_warnings,
    resume_line,
)


def main(argv: list[str] | None = None) -> None:
    """Runs one command; errors of input end it with their message and status 2, Ctrl-C with 130."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlib", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    own = (add_import, add_split, add_audit, add_init)
    for add in (
        add_doctor,
        *own,
        add_train,
        add_sweep,
        add_report,
        add_threshold,
        add_evaluate,
        add_predict,
        add_export,
    ):
        add(commands)
    plain_warnings()
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
        parser.exit(130, f"interrupted{resume_line(args)}\n")


if __name__ == "__main__":
    main()
