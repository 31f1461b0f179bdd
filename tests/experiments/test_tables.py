"""The tables of runs: all of them can be read, and each kind of run in them can be trained."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from data_scripts.registry import REGISTRY
from data_scripts.splits import load_splits
from rwkvlib.engine.checkpoint import load_checkpoint
from rwkvlib.engine.sweep import read_table
from rwkvlib.engine.train import train

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
TABLES = {path.stem: read_table(path) for path in sorted(FOLDER.glob("*.yaml"))}


def kinds():
    """One run of each: model, overrides, loss, classes, augmentation, precision."""
    found = {}
    for table, runs in TABLES.items():
        for name, (config, _) in runs.items():
            parts = ("model", "overrides", "loss", "num_classes", "augment", "mixed_precision", "schedule", "keep")
            found.setdefault(str([getattr(config, part) for part in parts]), pytest.param(config, id=f"{table}-{name}"))
    return list(found.values())


@pytest.mark.parametrize("config", kinds())
def test_each_kind_of_run_trains(config, tmp_path):
    """Two steps on synthetic images, and the weights can be loaded."""
    data, size = ("synthetic:4", 64) if config.num_classes == 1 else ("synthetic-formula:4", 64)
    if "filters" in config.overrides:
        size = 128  # seven stages
    classes = 1 if config.num_classes == 1 else 6
    small = dict(epochs=1, budget_seconds=0, batch_size=2, validate_every=2, save_every=0)
    config = replace(config, data=data, size=size, num_classes=classes, split="split", **small)
    log = train(config, tmp_path / "run", progress=False)
    assert log[0]["step"] == 2 and log[0]["loss"] > 0 and 0 <= log[0]["dice"] <= 1
    _, meta = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert meta["model"] == config.model
    assert len(list((tmp_path / "run").glob("kept/*"))) == (len(log) if config.keep == "all" else 0)


def test_the_gpu_tables_cover_models_and_sets():
    runs = [c for name, table in TABLES.items() if name.startswith("gpu_") for c, _ in table.values()]
    by_set = pd.DataFrame({"data": [Path(c.data).name for c in runs], "model": [c.model for c in runs]})
    models = {f"rwkv_unet_{size}" for size in "tsb"} | {"unet", "attention_unet", "swin_unetr", "dyn_unet"}
    for name in ("kvasir_seg", "cvc_clinicdb", "glas", "busi", "isic2017", "acdc"):
        assert set(by_set.loc[by_set["data"] == name, "model"]) == models, name
    assert {c.size for c in runs if Path(c.data).name == "acdc"} == {224}
    assert {c.size for c in runs if Path(c.data).name != "acdc"} == {256}
    assert all(c.mixed_precision == "bf16" and c.seed in (0, 1, 2) for c in runs)


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_known_sets_and_splits(name):
    for run, (config, test) in TABLES[name].items():
        data = Path(config.data).name
        assert data in REGISTRY, run
        splits = load_splits(data)
        assert {config.validation, test, "train"} <= set(splits[config.split]), run


@pytest.mark.parametrize(("name", "number"), [("reproduction", 15), ("longer", 1), ("empty_masks", 3)])
def test_networks_that_are_compared_share_the_recipe(name, number):
    runs = {run: config for run, (config, _) in TABLES[name].items()}
    pairs = [(run, run.replace("_t_", "_unet_")) for run in runs if "_t_" in run]
    assert len(pairs) == len(runs) / 2 == number
    for a, b in pairs:
        assert replace(runs[a], model="unet") == runs[b]


def test_the_longer_runs_differ_from_the_short_ones_in_their_length_only():
    for run, (config, _) in TABLES["longer"].items():
        short = TABLES["reproduction"][run][0]
        assert config.budget_seconds == 12 * short.budget_seconds
        logs = dict(validate_every=short.validate_every, save_every=short.save_every, keep=short.keep)
        assert replace(config, budget_seconds=short.budget_seconds, **logs) == short


def test_an_ablation_differs_from_the_full_model_in_one_thing():
    for name in ("ablations", "gpu_ablations"):
        runs = {run: config for run, (config, _) in TABLES[name].items()}
        for run, config in runs.items():
            data, seed = run.split("_")[0], run.split("_")[-1]
            full = runs[f"{data}_full_{seed}"]
            rest = replace(config, overrides={}, augment=full.augment)
            assert rest == full, run
            changed = len(config.overrides) + (config.augment != full.augment)
            # Without attention the decoder's large kernels still see far: one run goes without both.
            assert changed == {"full": 0, "no_attention_decoder_3": 2}.get(run[len(data) + 1 : -2], 1), run
