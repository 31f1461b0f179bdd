"""The commands ``evaluate`` and ``predict``: arguments and what they start. Imports wait until a command runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

CHECKPOINT = "a .safetensors file of train, or synthetic for the weights that come with the library"


def command_line() -> str:
    """The command as typed, with base names in the place of paths: a result must not depend on where files are kept."""
    return " ".join(["python -m rwkvlib", *(Path(a).name if "/" in a else a for a in sys.argv[1:])])


def _load(checkpoint: str):
    from .engine.checkpoint import load_checkpoint, load_pretrained

    return load_pretrained("rwkv_unet_t_synthetic") if checkpoint == "synthetic" else load_checkpoint(checkpoint)


def _device(model):
    import torch

    return model.to(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else model


def add_evaluate(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "evaluate",
        help="score a checkpoint, case by case",
        description="Cases are volumes, at their own size and in mm where that is known, or images, at the size of "
        "training. Writes cases.csv (a row for each case and class) and summary.json (means with intervals, and where "
        "they come from).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(run=_evaluate)
    p.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    p.add_argument("data", metavar="DATA", help="folder or zip with images/, masks/, items.csv; or a synthetic set")
    p.add_argument("--split", default="test")
    p.add_argument("--column", default="split", help="of items.csv, that says the splits")
    p.add_argument(
        "--protocol",
        default="strict",
        choices=("strict", "published"),
        type=lambda name: {"paper": "published"}.get(name, name),  # its old name
        help="see rwkvlib.engine.metrics",
    )
    p.add_argument("--unit", help="what is resampled for the intervals; default: patient, sequence, group or name")
    p.add_argument("--native", action="store_true", help="score images, too, at their own size")
    p.add_argument("--flips", action="store_true", help="average over mirror images")
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--out", help="folder for cases.csv and summary.json")


def _evaluate(args: argparse.Namespace) -> None:
    from .analysis.statistics import summarise
    from .data.dataset import has_volumes, iter_cases, load_data, split_items
    from .engine.checkpoint import write_file
    from .engine.evaluate import check_cases, evaluate
    from .provenance import provenance, write_result

    model, meta = _load(args.checkpoint)
    native, out = args.native or has_volumes(args.data), Path(args.out) if args.out else None
    check_cases(split_items(args.data, args.split, column=args.column), protocol=args.protocol, unit=args.unit)
    if native:
        data = iter_cases(args.data, args.split, column=args.column)
    else:
        data = load_data(args.data, args.split, size=meta["size"], column=args.column)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    table = evaluate(
        _device(model),
        data,
        protocol=args.protocol,
        size=meta["size"],
        batch_size=args.batch_size,
        flips=args.flips,
        progress=True,
        unfinished=out and out / "unfinished.csv",
    )
    if out:  # first: whatever goes wrong below, the scores are kept
        write_file(out / "cases.csv", table.to_csv(index=False, float_format="%.6g").encode())
        (out / "unfinished.csv").unlink(missing_ok=True)
    summary = summarise(table, args.unit)
    distance = {"mm": "mm", "pixel": "pixels"}[table["hd95_unit"].iloc[0]]
    for score, found in summary["overall"].items():
        unit = f" {distance}" if score == "hd95" else ""
        print(
            f"{score:<12} {found['mean']:.4f}{unit} ({100 * summary['confidence']:g} % interval {found['low']:.4f} to "
            f"{found['high']:.4f}, sd {found['sd']:.4f}; {found['cases']} cases, {found['undefined']} undefined)"
        )
    print(
        f"protocol {args.protocol}, intervals over {summary['overall']['dice']['units']} units of {summary['unit']!r}"
    )
    if not out:
        return
    run = Path(args.checkpoint).parent
    result = dict(
        data=Path(args.data).name,
        split=args.split,
        column=args.column,
        protocol=args.protocol,
        flips=args.flips,
        scored_at="own size" if native else meta["size"],
        hd95_unit=sorted(set(table["hd95_unit"])),
        checkpoint=meta,
        **{key: value for key, value in summary.items() if key != "seed"},
    )
    seed = None
    if args.checkpoint != "synthetic" and (run / "log.json").exists():
        result["log"] = json.loads((run / "log.json").read_text())
        result["config"] = json.loads((run / "config.json").read_text())
        result["training"] = json.loads((run / "provenance.json").read_text())["provenance"]
        result["config"]["data"] = Path(result["config"]["data"]).name
        seed = result["config"]["seed"]
    result["provenance"] = provenance(seed, command_line())
    write_result(out / "summary.json", result)


def add_predict(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "predict",
        help="write masks for images and volumes",
        description="Images (PNG, JPEG, TIFF, BMP) of any size become NAME.png, NIfTI volumes NAME.nii.gz. Files that "
        "cannot be read are named at the end; the others' masks are written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(run=_predict)
    p.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    p.add_argument("paths", nargs="+", metavar="PATH", help="image, NIfTI volume, or folder of them")
    p.add_argument("--out", required=True, help="folder for the masks")
    p.add_argument("--overlay", action="store_true", help="also the image with the mask above it")
    p.add_argument("--native", action="store_true", help="at the images' own size instead of that of training")
    p.add_argument("--window", type=int, metavar="PIXELS", help="at their own size, in windows of this side")
    p.add_argument("--flips", action="store_true", help="average over mirror images")
    p.add_argument(
        "--hu",
        nargs="*",
        type=float,
        metavar="HU",
        help="volumes are CT, in Hounsfield units: clip to LOW HIGH, without numbers to -125 275. Default: each "
        "volume's 0.5th to 99.5th percentile, as for magnetic resonance",
    )
    p.add_argument(
        "--as-stored", action="store_true", help="slices as the volume's file has them (ACDC), not axial from the feet"
    )
    p.add_argument("--batch-size", type=int, default=8, help="slices at a time")


def _predict(args: argparse.Namespace) -> None:
    from .engine.predict import predict_files

    hu = args.hu if args.hu is None else tuple(args.hu) or (-125.0, 275.0)
    if hu is not None and len(hu) != 2:
        raise ValueError(f"hu: expected LOW HIGH or nothing, got {len(hu)} numbers")
    if hu is not None and not hu[1] > hu[0]:
        raise ValueError(f"hu: expected HIGH above LOW, got {hu[0]:g} and {hu[1]:g}")
    model, meta = _load(args.checkpoint)
    written = predict_files(
        _device(model),
        args.paths,
        args.out,
        size=None if args.native or args.window else meta["size"],
        window=args.window,
        flips=args.flips,
        with_overlay=args.overlay,
        hu=hu,
        as_stored=args.as_stored,
        batch_size=args.batch_size,
    )
    print(f"{len(written)} masks in {args.out}")
