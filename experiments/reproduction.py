"""What the trained networks of a sweep give elsewhere and by other rules, without any further training.

    python experiments/reproduction.py transfer --runs runs/reproduction   # other data sets: results/transfer/
    python experiments/reproduction.py protocol --runs runs/reproduction   # other rules: results/protocol/
    python experiments/reproduction.py empty --runs runs/empty_masks       # empty masks: results/empty_masks/scored/

Needs what `python -m rwkvlib sweep` leaves in the folder (for `protocol` the weights of each validation too, as
``keep: all`` leaves them) and the prepared data. Writes a CSV of all cases and a JSON for each run, and skips the runs
that have theirs.
"""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rwkvlib.data.dataset import load_data
from rwkvlib.engine.checkpoint import load_checkpoint
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.record import write_scores
from rwkvlib.provenance import provenance

ROOT = Path(__file__).parents[1]
OUT = {"transfer": "transfer", "protocol": "protocol", "empty": "empty_masks/scored"}  # below results/
# By the set of the training, the other one of the same task, which is tested whole.
TRANSFER = {"kvasir_seg": "cvc_clinicdb", "cvc_clinicdb": "kvasir_seg"}


def transfer(run: Path, config: dict, out: Path) -> None:
    """The test of a network on the other data set of its task, unchanged: all of its images, as it has seen none."""
    data = Path(config["data"])
    if data.name not in TRANSFER or config["split"] != "split":
        return
    origin = provenance(config["seed"], "python experiments/reproduction.py transfer")
    target = load_data(data.with_name(TRANSFER[data.name]), size=config["size"])
    cases = evaluate(load_checkpoint(run / "model.safetensors")[0], target)
    about = dict(trained_on=data.name, tested_on=TRANSFER[data.name], data_hash=target.sha256())
    about["mean"] = cases[["dice", "iou", "hd95"]].mean().to_dict()
    write_scores(out, run.name, cases, provenance=origin, **about)


def protocol(run: Path, config: dict, out: Path) -> None:
    """The scores of one network's predictions on its test images by other rules than the sweep's, which are: at the
    size of training, masks resized by nearest neighbour, undefined scores left out, MONAI's HD95, no flips, weights
    chosen on validation.

    Columns of the CSV: ``dice_RULE`` and ``hd95_RULE`` for the rules flips (averaged over mirror images), published
    (the published code's, at the size of training), own_size (strict, at the files' size), published_own_size.
    In the JSON: the mean Dice on validation and test at each validation of the training.
    """
    origin = provenance(config["seed"], "python experiments/reproduction.py protocol")
    model, _ = load_checkpoint(run / "model.safetensors")
    options = dict(column=config["split"])
    small = load_data(config["data"], "test", size=config["size"], **options)
    large = load_data(config["data"], "test", **options)
    rules = {
        "flips": evaluate(model, small, flips=True),
        "published": evaluate(model, small, protocol="published"),
        "own_size": evaluate(model, large, size=config["size"]),
        "published_own_size": evaluate(model, large, size=config["size"], protocol="published"),
    }
    keys = ["name", "class"]
    cases = rules["flips"].drop(columns=["dice", "iou", "hd95", "sensitivity", "specificity", "predicted", "hd95_unit"])
    for rule, table in rules.items():
        found = table[[*keys, "dice", "hd95"]].rename(columns={c: f"{c}_{rule}" for c in ("dice", "hd95")})
        cases = cases.merge(found, on=keys, validate="one_to_one")
    kept = []
    for file in sorted((run / "kept").glob("step_*.safetensors")):
        weights, meta = load_checkpoint(file)
        test = evaluate(weights, small, hd95=False)["dice"].mean()
        kept.append(dict(step=meta["metrics"]["step"], validation=meta["metrics"]["dice"], test=test))
    about = dict(mean=cases.filter(regex="^(dice|hd95)_").mean().to_dict(), kept=kept)
    about |= dict(data=Path(config["data"]).name, own_size=list(large.images.shape[1:3]))
    write_scores(out, run.name, cases, provenance=origin, **about)


def empty(run: Path, config: dict, out: Path) -> None:
    """The scores of one network's predictions of ACDC's test patients, at the size of training, by both protocols, and
    of both kinds of case: the single slice, and the volume (of a patient, at one time of the heartbeat).

    Columns of the CSV: kind (slice or volume), name, class, patient, truth, predicted, and each of dice and hd95 by
    the strict rules and, with _published, by the published code's.
    """
    origin = provenance(config["seed"], "python experiments/reproduction.py empty")
    model, _ = load_checkpoint(run / "model.safetensors")
    slices = load_data(config["data"], "test", size=config["size"], column=config["split"])
    items = slices.items.drop(columns="volume", errors="ignore")
    volumes = items["patient"].astype(str) + "_" + items["frame"].astype(str)
    parts = []
    for kind, table in {"slice": items, "volume": items.assign(volume=volumes)}.items():
        strict, published = (evaluate(model, replace(slices, items=table), protocol=p) for p in ("strict", "published"))
        strict = strict[["name", "class", "patient", "truth", "predicted", "dice", "hd95"]]
        both = strict.merge(
            published[["name", "class", "dice", "hd95"]],
            on=["name", "class"],
            suffixes=("", "_published"),
            validate="one_to_one",
        )
        parts.append(both.assign(kind=kind))
    cases = pd.concat(parts)
    means = cases.groupby("kind")[["dice", "dice_published", "hd95", "hd95_published"]].mean()
    about = dict(data=Path(config["data"]).name, data_hash=slices.sha256(), mean=means.to_dict("index"))
    write_scores(out, run.name, cases, provenance=origin, **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=OUT)
    parser.add_argument("--runs", required=True, help="folder that the sweep wrote")
    parser.add_argument("--only", default="", help="regular expression that a run's name must hold")
    parser.add_argument("--out", type=Path, help="default: as above")
    args = parser.parse_args()
    out = args.out or ROOT / "results" / OUT[args.what]
    finished = [Path(args.runs) / "runs" / f.stem for f in sorted(Path(args.runs).glob("*_[0-9].json"))]
    if not finished:
        parser.error(f"--runs: expected the folder of a sweep with finished runs, got {args.runs!r}")
    for run in finished:
        if re.search(args.only, run.name) and not (out / f"{run.name}.json").exists():
            print(run.name, flush=True)
            make = {"transfer": transfer, "protocol": protocol, "empty": empty}[args.what]
            make(run, json.loads((run / "config.json").read_text()), out)


if __name__ == "__main__":
    main()
