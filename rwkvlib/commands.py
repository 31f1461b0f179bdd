"""The commands of ``python -m rwkvlib``: their arguments, and what they start. Imports wait until a command runs."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from .provenance import repeatable

CHECKPOINT = "a .safetensors file or a run's folder of train, or synthetic for the weights that come with the library"


def command_line() -> str:
    """The command as typed, to be run again from the same folder; see `repeatable`."""
    return f"python -m rwkvlib {repeatable(sys.argv[1:])}"


def plain_warnings() -> None:
    """Has the warnings of this project printed in one line, as its errors are."""
    usual = warnings.formatwarning

    def one_line(message, category, filename, lineno, line=None):
        if category is UserWarning and Path(filename).parent.name in ("rwkvlib", "data", "engine", "data_scripts"):
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = one_line


def _example(command: str, arguments: str) -> dict:
    """What a parser says at the end of its help."""
    return dict(epilog=f"example: rwkvlib {command} {arguments}")


def add_doctor(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "doctor",
        help="check this machine: versions, device, every backend against the oracle",
        **_example("doctor", "--json doctor.json"),
    )
    p.set_defaults(run=_doctor)
    p.add_argument("--json", nargs="?", const="-", metavar="FILE", help="as JSON, or as text and JSON in a file")


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


def add_train(commands) -> None:
    """Adds the commands train and pretrain to the parser's subparsers."""
    for name, what, example in (
        ("train", "train by a recipe: configs/*.yaml", "mine.yaml out=runs/mine"),
        (
            "pretrain",
            "pretrain, configs/pretrain_*.yaml: by a teacher, on formula images, or as a classifier",
            "configs/pretrain_formula.yaml out=runs/start",
        ),
    ):
        p = commands.add_parser(name, help=what, **_example(name, example))
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


def _train(args: argparse.Namespace) -> None:
    from .engine.sweep import train_command

    out = [] if args.out is None else [f"out={args.out}"]
    train_command(args.config, args.settings + out, command_line(), pretraining=args.command == "pretrain")


def resume_line(args: argparse.Namespace) -> str:
    """What goes on with an interrupted command; "" for those that begin anew."""
    if args.run is _sweep:
        return f"; go on with: {command_line()}"
    if args.run is not _train:
        return ""
    from .engine.checkpoint import states

    out = args.out or dict(s.partition("=")[::2] for s in args.settings).get("out")
    if not out or not states(Path(out).expanduser()):
        return " before the first checkpoint"
    rest = [s for s in args.settings if s.partition("=")[0] not in ("out", "resume")]
    line = shlex.join([args.config, *rest, f"out={out}", "resume=true"])
    return f"; go on with: python -m rwkvlib {args.command} {line}"


def add_sweep(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "sweep",
        help="train and score a table of recipes and seeds; skips what is done",
        **_example("sweep", "table.yaml --out runs/table --part 1/4"),
    )
    p.set_defaults(run=_sweep)
    p.add_argument("table", help="YAML file, see rwkvlib.engine.sweep")
    p.add_argument("settings", nargs="*", metavar="key=value", help="any field of the recipes, for every run")
    p.add_argument("--out", required=True, help="folder of the runs and their results")
    p.add_argument("--part", default="1/1", metavar="K/N", help="the Kth of each N runs, for N processes at a time")
    p.add_argument("--only", default="", metavar="REGEX", help="runs whose names hold it")


def _sweep(args: argparse.Namespace) -> None:
    from .engine.sweep import sweep

    try:
        sweep(args.table, args.out, part=args.part, settings=args.settings, only=args.only)
    except RuntimeError as error:  # after the other runs, of those that failed
        raise SystemExit(f"error: {error}") from error


def add_report(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "report",
        help="every table and figure of chapters 13 and 14, from results/ alone",
        **_example("report", "--out report"),
    )
    p.set_defaults(run=_report)
    p.add_argument("--out", default="report", help="folder for them")


def _report(args: argparse.Namespace) -> None:
    from .report import write_report

    print(f"{len(write_report(args.out))} tables and figures in {args.out}")


def _load(checkpoint: str, others: Sequence[str] = ()):
    """The model, or the average of several, and the metadata, of the first. Raises: ValueError where they disagree."""
    from .engine.checkpoint import load_checkpoint

    model, meta = load_checkpoint(os.path.expanduser(checkpoint))
    if not others:
        return model, meta
    from .engine.predict import Averaged

    def facts(meta: dict) -> dict:
        names = ("num_classes", "in_channels")
        given = {name: meta["overrides"].get(name) or default for name, default in zip(names, (1, 3), strict=True)}
        return given | {name: meta.get(name) for name in ("size", "class_names")}

    pairs = [(model, meta), *(load_checkpoint(os.path.expanduser(other)) for other in others)]
    for other, (_, its) in zip(others, pairs[1:], strict=True):
        if differing := [name for name, value in facts(meta).items() if facts(its)[name] != value]:
            name = differing[0]
            expected, got = facts(meta)[name], facts(its)[name]
            raise ValueError(f"with: expected {name} {expected!r} as in {checkpoint!r}, got {got!r} in {other!r}")
    return Averaged([model for model, _ in pairs]), meta


def _device(model):
    import torch

    return model.to(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else model


def _add_averaging(p: argparse.ArgumentParser) -> None:
    """The options of evaluate and predict that say whose masks, and from which probability on."""
    p.add_argument(
        "--with",
        action="append",
        default=[],
        dest="others",
        metavar="CHECKPOINT",
        help="a further checkpoint, whose probabilities are averaged with the first's; once for each",
    )
    p.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="of a binary mask's probability; default: the checkpoint's own, by the command threshold, or 0.5",
    )


def add_evaluate(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "evaluate",
        help="score a checkpoint, case by case",
        description="Cases are volumes, at their own size and in mm where that is known, or images, at the size of "
        "training. Writes cases.csv (a row for each case and class) and summary.json (means with intervals, and where "
        "they come from).",
        **_example("evaluate", "runs/mine mine --out scores"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(run=_evaluate)
    p.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    p.add_argument("data", metavar="DATA", help="folder or zip with images/, masks/, items.csv; or a synthetic set")
    p.add_argument("--split", default="test", help="a value of the column; all takes every item")
    p.add_argument("--column", default="split", help="of items.csv, that says the splits")
    p.add_argument(
        "--protocol",
        default="strict",
        choices=("strict", "published"),
        type=lambda name: {"paper": "published"}.get(name, name),  # its old name
        help="see rwkvlib.engine.metrics",
    )
    p.add_argument("--unit", help="what is independent, for the intervals; default: patient, sequence, group or name")
    p.add_argument("--native", action="store_true", help="score images, too, at their own size")
    p.add_argument("--flips", action="store_true", help="average over mirror images")
    _add_averaging(p)
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--masks", action="store_true", help="score masks: CHECKPOINT is a folder, NAME.png for each item")
    p.add_argument("--worst", type=int, metavar="N", help="also worst.png: the N cases of the lowest Dice")
    p.add_argument("--save-masks", action="store_true", help="also masks/NAME.png, class indices, for each item")
    p.add_argument("--out", help="folder for cases.csv and summary.json")
    p.add_argument("--overwrite", action="store_true", help="replace them, where --out holds them already")


def _evaluate(args: argparse.Namespace) -> None:
    from .analysis.statistics import summarise
    from .data.dataset import FileData, class_names, has_volumes, iter_cases, open_data, split_items
    from .data.files import save_png
    from .engine.checkpoint import reading, seen
    from .engine.evaluate import check_cases, evaluate, evaluate_masks
    from .engine.record import training_of, write_cases
    from .engine.worst import Worst
    from .files import exists, replacing
    from .provenance import provenance, write_result

    args.checkpoint = os.path.expanduser(args.checkpoint)
    if (args.worst is not None or args.save_masks) and not args.out:
        raise ValueError("out: expected a folder for --worst and --save-masks, got none")
    if args.masks and (args.others or args.flips or args.threshold is not None or args.native):
        raise ValueError("masks: expected none of --with, --flips, --threshold and --native beside --masks")
    if args.masks and not Path(args.checkpoint).is_dir():
        raise FileNotFoundError(f"masks: no folder {args.checkpoint!r}")
    if args.out:  # before the work
        args.out = os.path.expanduser(args.out)
        writes = ["cases.csv", "summary.json"] + ["worst.png"] * (args.worst is not None) + ["masks"] * args.save_masks
        there = [path for name in writes if (path := Path(args.out, name)).exists()]
        if there and not args.overwrite:
            raise exists(there)
    worst = None if args.worst is None else Worst(args.worst)
    model, meta = (None, {}) if args.masks else _load(args.checkpoint, args.others)
    threshold = meta.get("threshold", 0.5) if args.threshold is None else args.threshold
    sizes, out = {} if args.masks else seen(meta), Path(args.out) if args.out else None
    native = args.masks or args.native or sizes["size"] is None or has_volumes(args.data)
    split = None if args.split == "all" else args.split
    taken = dict(classes=_classes_of(args.data)) if args.masks else reading(meta)
    options = dict(column=args.column, **taken)
    check_cases(split_items(args.data, split, **options), protocol=args.protocol, unit=args.unit)
    if native:
        data = iter_cases(args.data, split, **options)
    else:
        data = open_data(args.data, split, size=sizes["size"], resize=sizes["resize"], **options)
        data = data.parts(args.batch_size) if isinstance(data, FileData) else data
    if out:
        out.mkdir(parents=True, exist_ok=True)

    def each(case, labels, rows):
        if worst:
            worst(case, labels, rows)
        if args.save_masks:
            for name, mask in zip(case.names, labels, strict=True):
                path = Path(args.out, "masks", f"{name}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary:
                    save_png(mask[None], temporary)

    shared = dict(protocol=args.protocol, progress=True, unfinished=out and out / "unfinished.csv", each=each)
    if args.masks:
        table = evaluate_masks(args.checkpoint, data, options["classes"], **shared)
    else:
        scored = dict(batch_size=args.batch_size, flips=args.flips, threshold=threshold, **sizes)
        scored |= {name: options[name] for name in ("ignore_index", "overlapping")}
        table = evaluate(_device(model), data, **scored, **shared)
    if worst:
        worst.write(Path(args.out, "worst.png"))
    if out:  # first: whatever goes wrong below, the scores are kept
        write_cases(out / "cases.csv", table)
        (out / "unfinished.csv").unlink(missing_ok=True)
    summary = summarise(table, args.unit)
    distance = {"mm": "mm", "pixel": "pixels"}[table["hd95_unit"].iloc[0]]
    for score, found in summary["overall"].items():
        label = f"{score} ({distance})" if score == "hd95" else score
        spread = "no interval of fewer than two units"
        if found["low"] == found["low"]:
            spread = f"{100 * summary['confidence']:g} % interval {found['low']:.4f} to {found['high']:.4f}"
            spread += f", sd {found['sd']:.4f}"
        mean = "undefined" if found["mean"] != found["mean"] else f"{found['mean']:.4f}"
        print(f"{label:<13} {mean} ({spread}; {found['cases']} cases, {found['undefined']} undefined)")
    names = class_names(args.data)
    if names and len(names) > 2:
        for number, found in summary["classes"].items():
            means = ((s, found[s]["mean"]) for s in ("dice", "hd95"))
            shown = ", ".join(f"{s} {'undefined' if mean != mean else f'{mean:.4f}'}" for s, mean in means)
            print(f"class {number} ({names[int(number)]}): {shown}")
    print(
        f"protocol {args.protocol}, intervals over {summary['overall']['dice']['units']} units of {summary['unit']!r}"
    )
    if not out:
        return
    checkpoint = Path(args.checkpoint)
    run = checkpoint if checkpoint.is_dir() else checkpoint.parent
    result = dict(
        data=Path(args.data).name,
        split=args.split,
        column=args.column,
        protocol=args.protocol,
        flips=args.flips,
        scored_at="own size" if native else meta["size"],
        hd95_unit=sorted(set(table["hd95_unit"])),
        **({"masks": checkpoint.name} if args.masks else {"checkpoint": meta}),
        **({"class_names": names} if names else {}),
        **{key: value for key, value in summary.items() if key != "seed"},
    )
    if args.others:
        result["averaged_with"] = [Path(other).name for other in args.others]
    if threshold != 0.5:
        result["threshold"] = threshold
    training = {} if args.masks or args.checkpoint == "synthetic" else training_of(run)
    seed = training["config"]["seed"] if training else None
    result |= training | {"provenance": provenance(seed, command_line())}
    write_result(out / "summary.json", result)


def _classes_of(data: str) -> int:
    """How many classes a data set has, the background included: by its names, else by its masks."""
    from .data.dataset import class_names, load_data, mask_values
    from .data.synthetic.sets import find_synthetic

    if find_synthetic(data):
        return max(2, int(load_data(data, "test").masks.max()) + 1)
    largest = max(mask_values(data))
    return len(class_names(data) or ()) or (2 if largest == 255 else max(2, largest + 1))


def add_threshold(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "threshold",
        help="choose the threshold of a binary mask on validation images, and keep it with the weights",
        description="Of 0.05, 0.10, ... 0.95 the one with the highest mean Dice, at the size of training. predict and "
        "evaluate take it from the checkpoint.",
        **_example("threshold", "runs/mine mine --out mine.safetensors"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(run=_threshold)
    p.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    p.add_argument("data", metavar="DATA", help="folder or zip with images/, masks/, items.csv; or a synthetic set")
    p.add_argument("--split", default="validation", help="a value of the column")
    p.add_argument("--column", default="split", help="of items.csv, that says the splits")
    p.add_argument("--out", metavar="FILE", help="the checkpoint with its threshold; without it nothing is written")
    p.add_argument("--overwrite", action="store_true", help="replace the file, which may be CHECKPOINT itself")


def _threshold(args: argparse.Namespace) -> None:
    from .data.dataset import load_data
    from .engine.threshold import dice_by_threshold, store_threshold
    from .files import exists, expand

    out = expand(args.out) if args.out else None
    if out and out.exists() and not args.overwrite:
        raise exists([out])
    model, meta = _load(args.checkpoint)
    data = load_data(args.data, args.split, size=meta["size"], column=args.column, classes=2)
    found = dice_by_threshold(_device(model), data)
    if not found:
        raise ValueError(f"split: expected masks with a foreground, got none in {args.split!r}")
    best = max(found, key=lambda t: (found[t], -abs(t - 0.5)))
    for threshold, dice in found.items():
        print(f"{threshold:.2f}  mean Dice {dice:.4f}{'  <- chosen' * (threshold == best)}")
    if out:
        store_threshold(args.checkpoint, out, best)


def add_predict(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "predict",
        help="write masks for images and volumes",
        description="Images (PNG, JPEG, TIFF, BMP) of any size become NAME.png, NIfTI volumes NAME.nii.gz. Files that "
        "cannot be read are named at the end; the others' masks are written.",
        **_example("predict", "runs/mine NEW_IMAGES --out masks"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(run=_predict)
    p.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    p.add_argument("paths", nargs="+", metavar="PATH", help="image, NIfTI volume, or folder of them")
    p.add_argument("--out", required=True, help="folder for the masks")
    p.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files of the results' names, those of an earlier run included; inputs are never replaced",
    )
    p.add_argument("--overlay", action="store_true", help="also the image with the mask above it")
    p.add_argument("--contour", action="store_true", help="as --overlay, with the outlines of the classes")
    p.add_argument(
        "--alpha", type=float, metavar="A", help="as --overlay, with this opacity; default 0.5, of outlines 1"
    )
    p.add_argument(
        "--probabilities",
        action="store_true",
        help="also NAME_probabilities.tif or .nii.gz, float32, for each output channel",
    )
    _add_averaging(p)
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


def check_hu(given: list[float] | None) -> tuple[float, float] | None:
    """The window of ``--hu``, which is that of Synapse without numbers. Raises: ValueError."""
    hu = None if given is None else tuple(given) or (-125.0, 275.0)
    if hu is not None and len(hu) != 2:
        raise ValueError(f"hu: expected LOW HIGH or nothing, got {len(hu)} numbers")
    if hu is not None and not hu[1] > hu[0]:
        raise ValueError(f"hu: expected HIGH above LOW, got {hu[0]:g} and {hu[1]:g}")
    return hu


def _predict(args: argparse.Namespace) -> None:
    from .engine.checkpoint import reading, seen
    from .engine.predict_files import predict_files

    hu = check_hu(args.hu)
    model, meta = _load(args.checkpoint, args.others)
    sizes = seen(meta)
    if args.native or args.window:
        sizes |= dict(size=None, window=args.window or sizes["window"])
    taken = reading(meta)
    written = predict_files(
        _device(model),
        args.paths,
        args.out,
        channels=taken["in_channels"],
        overlapping=taken["overlapping"],
        **sizes,
        flips=args.flips,
        with_overlay=args.overlay or args.contour or args.alpha is not None,
        contour=args.contour,
        alpha=(1.0 if args.contour else 0.5) if args.alpha is None else args.alpha,
        probabilities=args.probabilities,
        threshold=meta.get("threshold", 0.5) if args.threshold is None else args.threshold,
        hu=hu,
        as_stored=args.as_stored,
        batch_size=args.batch_size,
        overwrite=args.overwrite,
    )
    print(f"{len(written)} mask{'s' * (len(written) != 1)} in {args.out}")


def add_export(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "export",
        help="write a checkpoint as an ONNX file, which runs without PyTorch",
        description="The file takes images in [0, 1] of the model's channels, normalises them by itself, and gives "
        "logits; its metadata say sizes, classes and normalisation.",
        **_example("export", "runs/mine --dynamic --check --out mine.onnx"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(run=_export)
    p.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    p.add_argument("--out", required=True, metavar="FILE", help="to write, .onnx")
    sizes = p.add_mutually_exclusive_group()
    sizes.add_argument("--size", metavar="HEIGHTxWIDTH", help="in pixels, or one number; by default that of training")
    sizes.add_argument("--dynamic", action="store_true", help="any height and width, at a longer time for each image")
    p.add_argument("--largest", type=int, metavar="PIXELS", default=1024, help="height and width, with --dynamic")
    p.add_argument("--opset", type=int, metavar="N", help="of ONNX's operators, 18 or later, for an older runtime")
    numbers = p.add_mutually_exclusive_group()
    numbers.add_argument("--half", action="store_true", help="weights in float16, half the file")
    numbers.add_argument("--int8", action="store_true", help="convolutions in int8, a quarter of the file")
    p.add_argument("--calibrate", metavar="FOLDER", help="images like those of use: for --int8, and for --check")
    p.add_argument(
        "--check",
        action="store_true",
        help="compare with PyTorch by onnxruntime; exit status 1 where they differ by more than 1e-4 (logits), with "
        "--half 0.02 (probabilities) or 0.5 %% of the labels, with --int8 5 %% of the labels",
    )
    p.add_argument("--overwrite", action="store_true", help="replace the file, where it is there")


def parse_size(given: str) -> tuple[int, int]:
    """ "256x192" as (256, 192), height and width, and "256" as (256, 256). Raises: ValueError."""
    parts = given.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"size: expected HEIGHTxWIDTH as in 256x192, or one number, got {given!r}")
    return int(parts[0]), int(parts[-1])


def _export(args: argparse.Namespace) -> None:
    import tempfile

    from .data.pixels import pair
    from .engine.export import BOUNDS, compare, export_onnx, quantise, sample_images
    from .files import exists, expand
    from .models.registry import divisor_of

    out = expand(args.out)
    if args.int8 and not args.calibrate:
        raise ValueError("calibrate: expected a folder of images for --int8, whose ranges they give, got none")
    if args.calibrate and not (args.int8 or args.check):
        raise ValueError("calibrate: expected --int8 or --check beside it, which read the images")
    if out.exists() and not args.overwrite:
        raise exists([out])
    model, meta = _load(os.path.expanduser(args.checkpoint))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which operators of torchvision it does without
    trained = parse_size(args.size) if args.size else meta["size"]
    if trained is None:
        raise ValueError("size: expected --size HEIGHTxWIDTH for a network that was trained on patches")
    size = pair(trained)
    # Read before the work, which takes minutes.
    images = sample_images(model, size, args.calibrate) if args.check or args.int8 else []
    divisor = divisor_of(model)
    other = (max(size[0] // 2 // divisor, 1) * divisor, size[1])
    more = sample_images(model, other, args.calibrate) if args.check and args.dynamic else []
    about = {name: meta[name] for name in ("model", "class_names", "threshold") if name in meta}
    options = dict(opset_version=args.opset, half=args.half, largest=args.largest, about=about)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "float32.onnx") if args.int8 else out
        export_onnx(model, first, None if args.dynamic else size, **options)
        if args.int8:
            quantise(first, out, images)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if args.check:
        kind = "int8" if args.int8 else "float16" if args.half else "float32"
        found = compare(out, model, images + more)
        print(f"largest difference from PyTorch over {len(images + more)} images:", end=" ")
        print(", ".join(f"{name} {value:.2g}" for name, value in found.items()))
        if beyond := [
            f"{name} {found[name]:.2g} > {most:g}" for name, most in BOUNDS[kind].items() if found[name] > most
        ]:
            raise SystemExit(f"failed: beyond the bound of {kind}: {', '.join(beyond)}")


def add_import(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "import",
        help="your own images and masks, as they lie, to a data set",
        description="Images (PNG, JPEG, TIFF, BMP) or NIfTI volumes, in folders of any depth. Whatever is unmatched or "
        "bad is named in one report, and then nothing is written. Masks of 0 and 255, of one bit and of class indices "
        "need no option.",
        **_example("import", "--images A --masks B --mask-suffix _lesion --out mine"),
    )
    p.set_defaults(run=_import)
    p.add_argument("--images", required=True, metavar="FOLDER")
    p.add_argument(
        "--masks", required=True, metavar="FOLDER", help="the same relative paths; it may be the same folder"
    )
    p.add_argument("--out", required=True, metavar="FOLDER", help="the data set to create")
    p.add_argument(
        "--mask-suffix", default="", metavar="TEXT", help="what masks' names add to their image's, before .bmp"
    )
    p.add_argument("--threshold", type=float, metavar="T", help="masks are grey levels: foreground is above T")
    p.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="VALUE=CLASS",
        help="a value of the masks and the class that it is, or a colour: ff0000=1; once for each",
    )
    p.add_argument("--classes", default="", metavar="A,B", help="names of the classes 1, 2, ...; default: class_1, ...")
    p.add_argument(
        "--columns", metavar="CSV", help="table with a column name, and others for items.csv: patient, label"
    )
    p.add_argument(
        "--hu",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="CT: the window in Hounsfield units; else percentiles",
    )
    p.add_argument("--skip-bad", action="store_true", help="leave out what is bad, and list it in bad_items.csv")


def _import(args: argparse.Namespace) -> None:
    from .data_scripts.own import import_data

    out = import_data(
        args.images,
        args.masks,
        args.out,
        mask_suffix=args.mask_suffix,
        threshold=args.threshold,
        mapping=args.map,
        classes=[name.strip() for name in args.classes.split(",") if name.strip()],
        columns=args.columns,
        hu=check_hu(args.hu),
        skip_bad=args.skip_bad,
    )
    print((out / "dataset.json").read_text(encoding="utf8"), end="")
    if (out / "bad_items.csv").exists():
        print(f"left out: see {out / 'bad_items.csv'}", file=sys.stderr)


def add_split(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "split",
        help="deal a data set into train, validation and test, or folds",
        description="Writes a column of items.csv. Whatever has one patient, sequence, volume or group, or shows "
        "nearly the same, stays together.",
        **_example("split", "mine --shares 7:1:2 --group patient --stratify label"),
    )
    p.set_defaults(run=_split)
    p.add_argument("data", metavar="DATA", help="folder with images/, masks/ and items.csv")
    p.add_argument("--shares", metavar="A:B:C", help="of train, validation and test; 0 for none")
    p.add_argument("--folds", type=int, metavar="K", help="instead: folds 0 to K-1 of one size")
    p.add_argument("--group", metavar="COLUMN", help="a further column whose values stay together")
    p.add_argument("--stratify", metavar="COLUMN", help="a column whose values each part has in proportion")
    p.add_argument("--near", type=float, default=0.995, help="correlation of thumbnails above which images are near")
    p.add_argument("--column", help="to write; default: split, or fold")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--overwrite", action="store_true", help="replace the column, where there is one")


def _split(args: argparse.Namespace) -> None:
    import pandas as pd

    from .data_scripts.deal import split_data

    try:
        shares = None if args.shares is None else [float(share) for share in args.shares.split(":")]
    except ValueError as error:
        raise ValueError(f"shares: expected numbers as in 7:1:2, got {args.shares!r}") from error
    options = {
        name: getattr(args, name) for name in ("folds", "group", "stratify", "near", "column", "seed", "overwrite")
    }
    items = split_data(args.data, shares=shares, **options)
    column = items.pop(items.columns[-1])
    if args.stratify:
        counts = pd.crosstab(column, items[args.stratify], margins=True, dropna=False)
    else:
        counts = column.value_counts().sort_index()
    print(counts.to_string())
    print(f"{items['_group'].nunique()} groups stay whole, the largest of {items['_group'].value_counts().max()} items")


def add_audit(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "audit",
        help="duplicates, torn groups, and what masks hold",
        **_example("audit", "mine --strict"),
    )
    p.set_defaults(run=_audit)
    p.add_argument("data", metavar="DATA", help="folder or zip with images/, masks/ and items.csv")
    p.add_argument("--near", type=float, default=0.995, help="correlation of thumbnails above which images are near")
    p.add_argument("--strict", action="store_true", help="exit status 1 for torn groups, parted copies, wrong masks")
    p.add_argument("--out", metavar="FILE", help="JSON file for the result")


def _audit(args: argparse.Namespace) -> None:
    from .data_scripts.audit import audit, failures, summary
    from .files import expand
    from .provenance import provenance, write_result

    result = audit(args.data, near=args.near)
    print(summary(result))
    if args.out:
        name = Path(args.data).name
        command = f"python -m data_scripts audit {name} --near {args.near}"
        write_result(expand(args.out), {"data": name, **result, "provenance": provenance(None, command)})
    found = failures(result)
    if args.strict and found:
        raise SystemExit("\n".join(f"failed: {line}" for line in found))
    if broken := [*result["unreadable"].values(), *result["wrong_masks"].values()]:
        more = f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise ValueError(f"data: {len(broken)} items cannot be used: {'; '.join(broken[:5])}{more}")


def add_init(commands) -> None:
    """Adds the command to the parser's subparsers."""
    p = commands.add_parser(
        "init", help="print a recipe that trains on a data set", **_example("init", "mine > mine.yaml")
    )
    p.set_defaults(run=_init)
    p.add_argument("data", metavar="DATA", help="folder or zip with images/, masks/ and items.csv, which has a split")


def _init(args: argparse.Namespace) -> None:
    from .data_scripts.recipe import recipe

    print(recipe(args.data), end="")
