"""``python -m rwkvlib train | sweep | evaluate | predict``: the command line, which only reads arguments."""

import argparse
import json
import sys
from pathlib import Path


def _train(args: argparse.Namespace) -> None:
    from .engine.sweep import train_command

    train_command(args.config, args.settings, _command())


def _sweep(args: argparse.Namespace) -> None:
    from .engine.sweep import sweep

    sweep(args.table, args.out)


def _evaluate(args: argparse.Namespace) -> None:
    from .data import load_data
    from .engine.checkpoint import load_checkpoint
    from .engine.evaluate import evaluate
    from .provenance import provenance, write_result

    model, meta = load_checkpoint(args.checkpoint)
    table = evaluate(model, load_data(args.data, args.split, size=meta["size"], column=args.column))
    mean = {name: float(table[name].mean()) for name in ("dice", "iou", "hd95")}
    print(f"{len(table)} scores on {args.split}: " + ", ".join(f"{key} {value:.4f}" for key, value in mean.items()))
    if args.out:
        run = Path(args.checkpoint).parent
        result = dict(
            # Base names only: a result must not depend on where somebody keeps their files.
            data=Path(args.data).name,
            split=args.split,
            column=args.column,
            checkpoint=meta,
            mean=mean,
            hd95_undefined=int(table["hd95"].isna().sum()),
            images=json.loads(table.round(5).to_json(orient="records")),
        )
        seed = None
        if (run / "log.json").exists():
            result["log"] = json.loads((run / "log.json").read_text())
            result["config"] = json.loads((run / "config.json").read_text())
            result["training"] = json.loads((run / "provenance.json").read_text())["provenance"]
            result["config"]["data"] = Path(result["config"]["data"]).name
            seed = result["config"]["seed"]
        result["provenance"] = provenance(seed, _command())
        write_result(args.out, result)


def _command() -> str:
    """The command as typed, with base names in the place of paths."""
    return " ".join(["python -m rwkvlib", *(Path(a).name if "/" in a else a for a in sys.argv[1:])])


def _predict(args: argparse.Namespace) -> None:
    import numpy as np
    import torch
    from PIL import Image
    from torch.nn.functional import interpolate
    from tqdm import tqdm

    from .engine.checkpoint import load_checkpoint, load_pretrained
    from .engine.predict import predict

    pretrained = args.checkpoint == "synthetic"
    model, meta = load_pretrained("rwkv_unet_t_synthetic") if pretrained else load_checkpoint(args.checkpoint)
    files = sorted(f for f in Path(args.images).iterdir() if f.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif"))
    if not files:
        raise FileNotFoundError(f"images: expected .jpg, .png or .tif files in {args.images!r}")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for file in tqdm(files):
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        size = tuple(image.shape[2:])
        if not args.native:  # at the size of training, which is what the model knows
            image = interpolate(image, (meta["size"], meta["size"]), mode="bilinear", antialias=True)
        logits = interpolate(predict(model, image), size, mode="bilinear")
        mask = (logits[:, 0] > 0) * 255 if logits.shape[1] == 1 else logits.argmax(1)
        temporary = out / f".{file.stem}.png"
        Image.fromarray(mask[0].byte().numpy()).save(temporary)
        temporary.replace(out / f"{file.stem}.png")


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
    p.add_argument("--out", required=True, help="folder of the runs and their results")

    p = commands.add_parser(
        "evaluate", help="score a checkpoint, image by image", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.set_defaults(run=_evaluate)
    p.add_argument("--checkpoint", required=True, help="a .safetensors file of train")
    p.add_argument("--data", required=True, help="as for train")
    p.add_argument("--split", default="test")
    p.add_argument("--column", default="split", help="of items.csv, where a set is split in several ways")
    p.add_argument("--out", help="JSON file to write scores, learning curve and provenance to")

    p = commands.add_parser(
        "predict", help="write masks for a folder of images", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.set_defaults(run=_predict)
    p.add_argument("--checkpoint", required=True, help="a .safetensors file, or synthetic for the one that is shipped")
    p.add_argument("--images", required=True, help="folder of images, of any size")
    p.add_argument("--out", required=True, help="folder for the masks, NAME.png")
    p.add_argument("--native", action="store_true", help="at the images' own size instead of that of training")

    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
