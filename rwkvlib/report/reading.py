"""The runs of the study and the scores of their cases, read from results/: one row each.

A run is ``results/FOLDER/NAME.json`` with the scores of its cases beside it in ``NAME.csv``, as `rwkvlib.engine.sweep`
writes them; names are SET_MODEL_SEED.
"""

from __future__ import annotations

import pandas as pd

from ..bookkit.results import find_result, read_result

SETS = {
    "glas": "GlaS",
    "cvc_image": "CVC-ClinicDB by image",
    "cvc_sequence": "CVC-ClinicDB by video",
    "kvasir": "Kvasir-SEG",
    "busi": "BUSI",
}
OTHER_SETS = {
    "isic": "ISIC 2017",
    "acdc": "ACDC",
}  # of which there are runs, but no place in the tables of the five splits
MODELS = {"t": "RWKV-UNet-T", "unet": "U-Net"}
# The published code's rules of scoring were called "paper" in files of before version 0.2.
PUBLISHED = {f"{s}_paper{size}": f"{s}_published{size}" for s in ("dice", "hd95") for size in ("", "_own_size")}
LEARNT = 0.75  # side accuracy on the test images: between guessing and knowing
FALLEN = 0.2  # between the loss of a network that guesses the side, about 0.32, and of one that knows it, below 0.05


def read_cases(name: str) -> pd.DataFrame:
    """results/NAME.csv. Raises: as `find_result`."""
    return pd.read_csv(find_result(f"{name}.csv"), dtype={"name": str})


def runs(folder: str) -> pd.DataFrame:
    """A row for each finished run of a folder of results: name, set, model, seed, steps, seconds, parameters of origin.

    Raises: FileNotFoundError where there is none.
    """
    where = find_result(f"{folder}/table.json").parent
    known, rows = [*SETS, *OTHER_SETS], []
    for path in sorted(where.glob("*_[0-9].json")):
        result = read_result(f"{folder}/{path.name}")
        stem, seed = path.stem.rsplit("_", 1)
        data = next((s for s in known if stem.startswith(f"{s}_")), None)
        if data is None:
            raise ValueError(f"folder: expected names that begin with one of {known}, got {path.name!r}")
        last, origin = result["log"][-1], result["provenance"]
        rows.append(
            {"name": path.stem, "set": data, "model": stem[len(data) + 1 :], "seed": int(seed)}
            | {"steps": last["step"], "training_seconds": last["seconds"], "seconds": result["seconds"]}
            | {"validation": result["weights"]["dice"], "cpu": origin["hardware"]["cpu"]}
            | {"threads": origin["hardware"]["threads"], "torch": origin["versions"]["torch"]}
            | {"config": result["config_hash"][:8], "data": result["data_hash"]["test"][:8]}
            | {"commit": origin["commit"][:8], "time": origin["time"]}
        )
    return pd.DataFrame(rows)


def cases(folder: str, where: str | None = None) -> pd.DataFrame:
    """The cases of all runs of a folder, with set, model and seed. `where`: the folder of their CSV files, if another
    one."""
    parts = []
    for r in runs(folder).itertuples():
        found = read_cases(f"{where or folder}/{r.name}").rename(columns=PUBLISHED)
        parts.append(found.assign(set=r.set, model=r.model, seed=r.seed))
    return pd.concat(parts, ignore_index=True)


def transferred() -> pd.DataFrame:
    """The cases on the other data set of the same task, with way, model and seed."""
    parts = []
    for r in runs("reproduction").itertuples():
        if r.set in ("kvasir", "cvc_sequence"):
            origin = read_result(f"transfer/{r.name}")
            way = f"{origin['trained_on']} to {origin['tested_on']}"
            parts.append(read_cases(f"transfer/{r.name}").assign(way=way, model=r.model, seed=r.seed))
    return pd.concat(parts, ignore_index=True)


def curves() -> pd.DataFrame:
    """Dice on validation against steps and seconds of training, of each run."""
    rows = []
    for r in runs("reproduction").itertuples():
        for x in read_result(f"reproduction/{r.name}")["log"]:
            row = dict(set=r.set, model=r.model, seed=r.seed)
            rows.append(row | {key: x[key] for key in ("step", "seconds", "dice")})
    return pd.DataFrame(rows)


def long_range_runs() -> pd.DataFrame:
    """A row for each run in the files of results/long_range/, which `experiments/long_range.py` wrote, with two more
    columns: learnt, whether the side accuracy is above `LEARNT`, and the step, in tens, at which the training loss
    first fell below `FALLEN` (not a number: never). The runs of distances.json are first.

    Raises:
        FileNotFoundError: there is no distances.json.
        ValueError: the files hold runs of several recipes, or the same run twice.
    """
    first = find_result("long_range/distances.json")
    paths = [first, *sorted(p for p in first.parent.glob("*.json") if p != first)]
    read = [read_result(f"long_range/{p.name}") for p in paths]
    if any(r["recipe"] != read[0]["recipe"] for r in read):
        raise ValueError(f"long_range: expected runs of one recipe, got {[r['recipe'] for r in read]}")
    found = pd.DataFrame([run for r in read for run in r["runs"]])
    keys = ["model", "distance", "seed"]
    if found.duplicated(keys).any():
        raise ValueError(f"long_range: expected each run once, got twice:\n{found.loc[found.duplicated(keys), keys]}")
    step = [next((10 * (i + 1) for i, x in enumerate(losses) if x < FALLEN), None) for losses in found["losses"]]
    return found.assign(learnt=found["side_accuracy"] > LEARNT, step=pd.Series(step, dtype=float))
