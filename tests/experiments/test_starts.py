"""The experiment on starts: its tables are what its plan says, and the photographs are those that may be shipped."""

import csv
import hashlib
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data_scripts.splits import load_splits
from rwkvlib.bookkit import read_result
from rwkvlib.engine.config import load_config
from rwkvlib.engine.sweep import read_table

FOLDER = Path(__file__).resolve().parents[2] / "experiments/starts"
TABLES = {path.stem: read_table(path) for path in sorted(FOLDER.glob("*.yaml"))}
SPLITS = ("glas", "kvasir", "busi", "cvc_image", "cvc_sequence", "isic")
ARMS = ("t_random", "t_formula", "t_teacher", "unet_random", "unet_formula", "lite0")


def recipe(table, name):
    return TABLES[table][name][0]


def own(config):
    """What a network may have of its own."""
    return {field: getattr(config, field) for field in ("model", "batch_size", "lr", "steps")}


def test_the_tables_are_those_of_the_plan():
    assert set(TABLES) == {"search", "starts", "longer", "few_labels"}
    assert set(TABLES["starts"]) == {f"{s}_{a}_{seed}" for s in SPLITS for a in ARMS for seed in (0, 1, 2)}
    assert len(TABLES["search"]) == 12 and len(TABLES["longer"]) == 10 and len(TABLES["few_labels"]) == 96
    for table, runs in TABLES.items():
        for name, (config, test) in runs.items():
            assert config.size == 128 and config.validation == "validation" and config.choose == "best", name
            assert test == ("validation" if table == "search" else "test"), name
            assert {"train", "validation", test} <= set(load_splits(Path(config.data).name)[config.split]), name


def test_starts_differ_in_network_and_start_only():
    for split in SPLITS:
        first = recipe("starts", f"{split}_t_random_0")
        for arm in ARMS:
            for seed in (0, 1, 2):
                config = recipe("starts", f"{split}_{arm}_{seed}")
                assert replace(config, **own(first), pretrained=None, seed=0) == first
                network, _, start = arm.partition("_")
                assert own(config) == own(recipe("starts", f"glas_{network}{'_random' * (network != 'lite0')}_0"))
                weights = {"formula": f"weights/{arm}.safetensors", "teacher": "teacher"}.get(start)
                assert config.pretrained == weights, arm
        assert (first.split == "split_image") == (split == "cvc_image") and first.budget_seconds == 0
    sets = {Path(recipe("starts", f"{split}_t_random_0").data).name for split in SPLITS}
    assert sets == {"glas", "kvasir_seg", "busi", "cvc_clinicdb", "isic2017"}


def test_each_network_is_searched_alike_and_what_was_found_is_in_the_tables():
    trials = {name: config for name, (config, _) in TABLES["search"].items()}
    networks = {config.model for config in trials.values()}
    assert networks == {"rwkv_unet_t", "unet", "lite0_unet"}
    first = next(iter(trials.values()))
    for model in networks:
        tried = {(c.batch_size, c.lr) for c in trials.values() if c.model == model}
        assert tried == {(b, lr) for b in (4, 8) for lr in (1e-3, 3e-4)}
    assert all(replace(c, **own(first)) == first for c in trials.values())
    assert first.budget_seconds == 300 and first.pretrained is None
    chosen = {}
    for model in networks:
        ends = {name: read_result(f"starts/search/{name}") for name, c in trials.items() if c.model == model}
        best = max(end["mean"]["dice"] for end in ends.values())
        near = [(trials[name], end) for name, end in ends.items() if end["mean"]["dice"] > best - 0.005]
        config, end = min(near, key=lambda pair: (pair[0].batch_size, -pair[0].lr))
        chosen[model] = (config.batch_size, config.lr, 2 * end["log"][-1]["step"])
    for table, length in (("starts", 1), ("few_labels", 1), ("longer", 6)):
        found = {(c.model, c.batch_size, c.lr, c.steps) for c, _ in TABLES[table].values()}
        assert found == {(model, b, lr, length * steps) for model, (b, lr, steps) in chosen.items()}, table


def test_few_labels_differ_from_the_whole_in_the_share_only():
    for name, (config, _) in TABLES["few_labels"].items():
        split, share, arm = name.split("_", 2)
        assert config.labels == int(share) / 100 and replace(config, labels=1) == recipe("starts", f"{split}_{arm}")


def test_the_longer_runs_stop_by_themselves_and_differ_in_what_they_compare():
    for split in ("glas", "kvasir"):
        first = recipe("longer", f"{split}_t_random_0")
        assert first.patience == 0.2 and first.schedule == "constant"
        assert recipe("longer", f"{split}_t_no_attention_0") == replace(first, overrides={"attention": False})
        weights = recipe("starts", f"{split}_t_teacher_0").pretrained
        assert recipe("longer", f"{split}_t_teacher_0") == replace(first, pretrained=weights)
        for arm in ("unet_random", "lite0"):
            assert replace(recipe("longer", f"{split}_{arm}_0"), **own(first)) == first


def test_both_networks_learn_formula_images_by_one_recipe():
    path = FOLDER.parents[1] / "configs/pretrain_formula.yaml"
    t, unet = (asdict(load_config(path, [f"model={model}"])) for model in ("rwkv_unet_t", "unet"))
    assert t | {"model": "unet"} == unet and t["seed"] == 0
    assert f"{path.relative_to(FOLDER.parents[1])} model=unet" in (FOLDER / "README.md").read_text()


@pytest.fixture
def photographs(load_experiment):
    return load_experiment("starts/photographs")


def packages(module, root, without=()):
    """Stand-ins for both packages, with a file of some bytes for each picture."""
    for package, (folder, pictures) in module.PICTURES.items():
        (root / package / folder).mkdir(parents=True)
        (root / package / "__init__.py").touch()
        for name in pictures.keys() - set(without):
            (root / package / folder / name).write_bytes(f"{package} {name}".encode())


def test_photographs_are_copied_with_their_licences(photographs, tmp_path, monkeypatch, capsys):
    packages(photographs, tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(sys, "argv", ["photographs.py", "--out", str(tmp_path / "out")])
    photographs.main()
    with open(tmp_path / "out/photographs.csv", newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} | {"photographs.csv"} == {path.name for path in (tmp_path / "out").iterdir()}
    assert len(rows) == 17 and {row["licence"] for row in rows} == {"CC0 1.0", "public domain", "CC BY 2.0"}
    assert not {"moon", "page", "motorcycle_left", "ihc", "coins"} & {Path(row["name"]).stem for row in rows}
    for row in rows:
        assert hashlib.sha256((tmp_path / "out" / row["name"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["credit"], "attribution is what CC BY asks for"
    said = capsys.readouterr().out
    assert "17 pictures" in said and all(row["sha256"][:16] in said for row in rows)
    card = (FOLDER.parents[1] / "book/data_card.md").read_text()
    assert all(f"`{Path(row['name']).stem}`" in card for row in rows), "the data card names each"


def test_a_missing_package_or_picture_is_named_and_nothing_is_written(photographs, tmp_path, monkeypatch):
    packages(photographs, tmp_path / "site", without=["flower.jpg"])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(sys, "argv", ["photographs.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"error: flower\.jpg: expected it in scikit-learn"):
        photographs.main()
    monkeypatch.setattr(photographs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="error: skimage: expected scikit-image: pip install scikit-image"):
        photographs.main()
    assert not (tmp_path / "out").exists()
