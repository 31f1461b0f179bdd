"""What is kept of scored predictions: a table of the cases, and beside it a result that says where they came from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_file
from ..provenance import write_result

if TYPE_CHECKING:
    import pandas as pd


def config_hash(recipe: dict) -> str:
    """SHA-256 of a recipe as JSON, its seed left out: the seeds of one run have one hash."""
    return hashlib.sha256(json.dumps(recipe | {"seed": None}, sort_keys=True).encode()).hexdigest()


def write_cases(path: str | Path, cases: pd.DataFrame) -> None:
    """Writes a table of `rwkvlib.engine.evaluate.evaluate` as CSV, to six significant digits."""
    write_file(path, cases.to_csv(index=False, float_format="%.6g"))


def write_scores(
    folder: str | Path, name: str, cases: pd.DataFrame, *, provenance: dict, config: dict | None = None, **about: Any
) -> Path:
    """Writes the scores of a run: ``NAME.csv`` with its cases and then ``NAME.json``, so that a run which has the
    latter is whole. Returns the path of the latter.

    Args:
        provenance: of `rwkvlib.provenance.provenance`, taken when the run began.
        config: the recipe, which gets its hash beside it.
        about: what else the result says, such as data_hash, mean, seconds and log.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {} if config is None else dict(config=config, config_hash=config_hash(config))
    write_cases(folder / f"{name}.csv", cases)
    return write_result(folder / f"{name}.json", dict(name=name, **recipe, **about, provenance=provenance))


def training_of(run: Path) -> dict[str, Any]:
    """What the folder of a training says of it: log, config (of the data only the name) and, as training, its
    provenance, which the runs of a sweep have in ``NAME.json`` instead. Empty where the folder is none of a training.
    """
    if not (run / "log.json").exists():
        return {}
    log, config = (json.loads((run / f"{name}.json").read_text()) for name in ("log", "config"))
    found = dict(log=log, config=config | {"data": Path(config["data"]).name})
    if (run / "provenance.json").exists():
        found["training"] = json.loads((run / "provenance.json").read_text())["provenance"]
    return found
