"""Recipes from the command line: one, or a table of them with several seeds, which goes on where it was killed."""

import hashlib
import itertools
import json
import re
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from ..data.dataset import FileData
from ..provenance import provenance, repeatable, to_json
from .checkpoint import checkpoint_file, load_checkpoint, write_file
from .config import FormulaConfig, PretrainConfig, TeacherConfig, TrainConfig, base_names, load_config, with_added
from .evaluate import evaluate
from .metrics import SCORES
from .pretrain import pretrain
from .record import write_scores
from .train import open_split, train

RUN = ("out", "resume", "stop_after")


def train_command(path: str, settings: list[str], line: str, *, pretraining: bool = False) -> None:
    """``python -m rwkvlib train CONFIG [key=value ...]``: beside the recipe's fields `settings` may hold the arguments
    of `train`: out (required), resume (true or previous) and stop_after (epochs). `pretraining` takes no recipe for
    segmentation."""
    pairs = dict(s.partition("=")[::2] for s in settings)
    run: dict[str, Any] = {
        key: pairs[key] if key == "out" else yaml.safe_load(pairs[key]) for key in RUN if key in pairs
    }
    config = load_config(path, [s for s in settings if s.partition("=")[0] not in RUN])
    if not run.get("out"):
        raise ValueError("out: expected the run's folder as out=PATH or --out PATH, got none")
    if pretraining and isinstance(config, TrainConfig):
        raise ValueError(f"task: expected formula, imitate or classify in {path!r}, got segment; its command is train")
    if isinstance(config, TeacherConfig):
        from .teacher import imitate

        imitate(config, **run, command=line)
    elif isinstance(config, FormulaConfig):
        from .formula import pretrain_formula

        pretrain_formula(config, **run, command=line)
    elif isinstance(config, PretrainConfig):
        pretrain(config, **run, command=line)
    else:
        train(config, **run, command=line)


def _settings(values: dict, prefix: str = "") -> list[str]:
    """Nested values as key=value."""
    lines = []
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        lines += _settings(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}={json.dumps(value)}"]
    return lines


def read_table(path: str | Path, settings: Sequence[str] = ()) -> dict[str, tuple[TrainConfig, str]]:
    """The runs of a table: by name the recipe and the split to score it on.

    ::

        seeds: [0, 1, 2]           # of every run
        budget_seconds: 240        # of training, of every run
        test: test                 # the split that is scored; default test
        common: {pretrained: null, validate_every: 25}   # fields of the recipe, of every run
        runs:
          glas_t: {config: ../configs/glas_fast.yaml, data: glas.zip}   # and any fields of the recipe
          glas_unet: {config: ../configs/glas_fast.yaml, data: glas.zip, model: unet, overrides: {norm: batch}}

    Paths of recipes are relative to the table. The name of a run gets its seed: ``glas_t_0``. All runs of the
    first seed come first, in the table's order. `settings` are ``key=value`` each, and win over the table.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"table: no file {str(path)!r}")
    table = yaml.safe_load(path.read_text(encoding="utf8"))
    known = {"runs", "seeds", "budget_seconds", "test", "common"}
    if not isinstance(table, dict) or not isinstance(table.get("runs"), dict) or set(table) - known:
        raise ValueError(f"table: expected runs and any of {sorted(known)} in {str(path)!r}, got {table!r:.200}")
    runs = {}
    for seed, (name, given) in itertools.product(table.get("seeds", [0]), table["runs"].items()):
        fields = {"test": table.get("test", "test"), "seed": seed} | table.get("common", {}) | given
        if "budget_seconds" in table:
            fields = {"budget_seconds": table["budget_seconds"]} | fields
        if "config" not in fields:
            raise ValueError(f"config: expected the recipe of run {name!r}, got none")
        recipe, test = path.parent / fields.pop("config"), fields.pop("test")
        config = load_config(recipe, _settings(fields) + list(settings))
        if not isinstance(config, TrainConfig):
            raise ValueError(f"config: expected recipes for segmentation, got {str(recipe)!r} for run {name!r}")
        runs[f"{name}_{seed}"] = (config, test)
    return runs


def check_part(part: str) -> tuple[int, int]:
    """ "2/3" as (1, 3). Raises: ValueError."""
    first, _, of = part.partition("/")
    if not (first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise ValueError(f"part: expected K/N with K from 1 to N, got {part!r}")
    return int(first) - 1, int(of)


def sweep(
    table: str | Path,
    out: str | Path,
    progress: bool = True,
    part: str = "1/1",
    settings: Sequence[str] = (),
    only: str = "",
) -> pd.DataFrame:
    """Trains and scores every run of a table (see `read_table`), each in turn.

    Writes for each run, when it is finished, ``NAME.csv`` (the scores of every case) and ``NAME.json`` (recipe and its
    hash, hashes of the data, log, mean scores, provenance, seconds from the start of training to the scores), and then
    ``table.csv`` and ``table.json`` with one row a run. What has its file is skipped; what was interrupted goes on from
    its last checkpoint in ``runs/NAME``, where the chosen weights stay.

    Args:
        part: "K/N" takes the Kth of each N runs, for N processes that share the table and `out`.
        settings: see `read_table`.
        only: a regular expression that a run's name must hold; the others are left for another time.

    Returns: the table. Raises: ValueError for a bad table or part, or a result in `out` of another recipe under the
        same name; RuntimeError, after the other runs, that names those which failed.
    """
    out, runs, failed = Path(out).expanduser(), read_table(table, settings), {}
    first, of = check_part(part)
    line = [str(table), *settings, "--out", str(out)] + ["--part", part] * (part != "1/1")
    line += ["--only", only] * bool(only)
    command = f"python -m rwkvlib sweep {repeatable(line)}"
    out.mkdir(parents=True, exist_ok=True)
    chosen = [(name, run) for name, run in runs.items() if re.search(only, name)]
    if not chosen:
        raise ValueError(f"only: no run's name holds {only!r}; there are {', '.join(runs)}")
    bar = tqdm(chosen[first::of], desc="runs", disable=not progress)
    for name, (config, test) in bar:
        file = out / f"{name}.json"
        recipe = {name: base_names(name, value) for name, value in vars(config).items()}
        recipe = json.loads(to_json(recipe | {"test": test}))
        if file.exists():
            if with_added(json.loads(file.read_text())["config"], recipe) != recipe:
                raise ValueError(f"out: {str(file)!r} is of another recipe than the table's; choose another folder")
            continue
        bar.set_postfix_str(name)
        # Taken now: the code that runs is the one that was there at the start.
        origin, began = provenance(config.seed, command), time.perf_counter()
        try:
            log = train(config, out / "runs" / name, resume=True, progress=progress)
            model, meta = load_checkpoint(out / "runs" / name / "model.safetensors")
            data = open_split(config, test)
            images = data.parts() if isinstance(data, FileData) else data
            counted = dict(ignore_index=config.ignore_index, overlapping=config.overlapping)
            scores = evaluate(model, images, protocol=config.protocol, window=config.crop, **counted)
        except Exception as error:  # one bad run must not cost the others theirs
            if not isinstance(error, (ValueError, TypeError, OSError, ImportError, FloatingPointError)):
                traceback.print_exc()  # of no cause that its message names
            failed[name] = f"{type(error).__name__}: {error}"
            bar.write(f"{name} failed: {failed[name]}")
            continue
        seconds = round(time.perf_counter() - began, 1)
        hashes = {s: open_split(config, s).sha256() for s in ("train", config.validation, test) if s is not None}
        if config.pretrained:
            hashes["pretrained"] = hashlib.sha256(checkpoint_file(config.pretrained, model).read_bytes()).hexdigest()
        mean = {key: float(scores[key].mean()) for key in SCORES}
        about = dict(data_hash=hashes, mean=mean, weights=meta.get("metrics"), seconds=seconds, log=log)
        write_scores(out, name, scores, provenance=origin, config=recipe, **about)
        _collect(out, list(runs))
    if failed:
        raise RuntimeError("runs: " + "; ".join(f"{name} failed ({why})" for name, why in failed.items()))
    return _collect(out, list(runs))


def _collect(out: Path, names: list[str]) -> pd.DataFrame:
    """One row for each finished run: name, recipe in short, length of training, mean scores."""
    rows = []
    for name in names:
        if (out / f"{name}.json").exists():
            result = json.loads((out / f"{name}.json").read_text())
            recipe, last = result["config"], result["log"][-1]
            row = {"name": name} | {key: recipe[key] for key in ("data", "split", "test", "model", "size", "seed")}
            rows.append(row | {"steps": last["step"], "seconds": round(last["seconds"], 1)} | result["mean"])
    table = pd.DataFrame(rows)
    write_file(out / "table.csv", table.to_csv(index=False).encode())
    write_file(out / "table.json", table.to_json(orient="records", indent=1).encode())
    return table
