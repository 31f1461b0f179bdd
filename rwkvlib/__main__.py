"""``python -m rwkvlib train | evaluate | predict``: the command line, which only reads arguments."""

import argparse
import json
from dataclasses import fields
from pathlib import Path

from .commands import add_evaluate, add_predict, command_line


def _train(args: argparse.Namespace) -> None:
    from .engine.train import TrainConfig, train
    from .provenance import provenance, write_result

    given = {f.name: getattr(args, f.name) for f in fields(TrainConfig)}
    origin = provenance(args.seed, command_line())  # before the run: of the code that it starts with
    log = train(TrainConfig(**given), args.out, resume=args.resume, stop_after=args.stop_after)
    if not args.resume:  # a resumed run keeps the record of its start
        write_result(Path(args.out) / "provenance.json", {"provenance": origin})
    best = max(log, key=lambda row: row["dice"])
    print(f"best validation Dice {best['dice']:.4f} in epoch {best['epoch']}: {Path(args.out) / 'best.safetensors'}")


def main(argv: list[str] | None = None) -> None:
    """Runs one command; errors of input end it with their message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser(
        "train", help="train a model from scratch", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.set_defaults(run=_train)
    p.add_argument("--data", required=True, help="folder or zip with images/, masks/, items.csv; or synthetic[:COUNT]")
    p.add_argument("--out", required=True, help="folder of the run")
    p.add_argument("--model", default="rwkv_unet_t", help="a name of create_model")
    p.add_argument("--size", type=int, default=128, help="height and width in pixels that images are resized to")
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--lr", type=float, default=1e-3, help="peak of the one-cycle schedule")
    p.add_argument("--weight-decay", type=float, default=1e-2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--num-classes", type=int, default=1, help="1 for binary masks, else background included")
    p.add_argument("--no-augment", dest="augment", action="store_false", help="train on the images as they are")
    p.add_argument("--mixed-precision", default="no", choices=("no", "bf16", "fp16"))
    p.add_argument("--overrides", type=json.loads, default={}, help='of the model, as JSON: {"ccm": false}')
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")
    p.add_argument("--stop-after", type=int, metavar="N", help="stop when N epochs are done, to be resumed later")

    add_evaluate(commands)
    add_predict(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
