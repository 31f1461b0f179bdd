"""What is measured with the trained networks of a sweep, on two small data sets that were drawn."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rwkvlib.data import synthetic_polyps
from rwkvlib.engine.checkpoint import load_checkpoint
from rwkvlib.engine.sweep import sweep
from tests.conftest import TINY


def write_set(folder, first):
    """Twelve images of 48 pixels in four sequences."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for i in range(12):
        image, mask = synthetic_polyps(first + i, 48)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
        split = ["train", "train", "validation", "test"][i // 3]
        rows.append(dict(name=i, sequence=i // 3, split=split, split_image=split))
    pd.DataFrame(rows).to_csv(folder / "items.csv", index=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a sweep over both sets."""
    root = tmp_path_factory.mktemp("swept")
    runs = {}
    for i, name in enumerate(("kvasir_seg", "cvc_clinicdb")):
        write_set(root / "data" / name, 100 * i)
        recipe = dict(data=str(root / "data" / name), size=32, epochs=2, batch_size=3, overrides=TINY, keep="all")
        (root / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        runs[name] = {"config": f"{name}.yaml"}
    (root / "table.yaml").write_text(yaml.safe_dump(dict(runs=runs)))
    sweep(root / "table.yaml", root / "runs", progress=False)
    return root


@pytest.fixture
def run(monkeypatch, load_experiment):
    module = load_experiment("reproduction")

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["reproduction.py", *map(str, options)])
        module.main()

    return run


def test_transfer_scores_all_images_of_the_other_set(swept, run, tmp_path, capsys):
    run("transfer", "--runs", swept / "runs", "--out", tmp_path)
    result = json.loads((tmp_path / "kvasir_seg_0.json").read_text())
    assert (result["trained_on"], result["tested_on"]) == ("kvasir_seg", "cvc_clinicdb")
    cases = pd.read_csv(tmp_path / "kvasir_seg_0.csv")
    assert len(cases) == 12 and set(cases["split"]) == {"train", "validation", "test"} and "sequence" in cases
    assert cases["dice"].mean() == pytest.approx(result["mean"]["dice"], abs=1e-5)
    assert result["provenance"]["seed"] == 0 and str(tmp_path) not in json.dumps(result)
    other = json.loads((tmp_path / "cvc_clinicdb_0.json").read_text())
    assert other["tested_on"] == "kvasir_seg" and other["data_hash"] != result["data_hash"]
    capsys.readouterr()
    (tmp_path / "cvc_clinicdb_0.json").unlink()
    run("transfer", "--runs", swept / "runs", "--out", tmp_path)
    assert capsys.readouterr().out.split() == ["cvc_clinicdb_0"], "what is done is skipped"


def test_other_rules_score_the_same_predictions(swept, run, tmp_path):
    run("protocol", "--runs", swept / "runs", "--out", tmp_path, "--only", "kvasir")
    assert {path.name for path in tmp_path.iterdir()} == {"kvasir_seg_0.json", "kvasir_seg_0.csv"}
    result = json.loads((tmp_path / "kvasir_seg_0.json").read_text())
    cases = pd.read_csv(tmp_path / "kvasir_seg_0.csv", dtype={"name": str}).set_index("name")
    own = pd.read_csv(swept / "runs" / "kvasir_seg_0.csv", dtype={"name": str}).set_index("name")
    rules = [
        f"{score}_{rule}"
        for rule in ("flips", "published", "own_size", "published_own_size")
        for score in ("dice", "hd95")
    ]
    assert set(rules) <= set(cases) and list(cases.index) == list(own.index) and "dice" not in cases
    # The masks have no empty ones, so the published rules change Dice nowhere, and HD95 only where it is a miss or by
    # its definition.
    pd.testing.assert_series_equal(cases["dice_published"], own["dice"], check_names=False)
    missed = own["predicted"] == 0
    assert (cases.loc[missed, "hd95_published"] == 0).all() and own.loc[missed, "hd95"].isna().all()
    assert (cases.loc[~missed, "hd95_published"] <= own.loc[~missed, "hd95"] + 1e-4).all()
    assert result["own_size"] == [48, 48] and not cases["dice_own_size"].equals(own["dice"])
    weights = load_checkpoint(swept / "runs" / "runs" / "kvasir_seg_0" / "model.safetensors")[1]["metrics"]
    assert [row["step"] for row in result["kept"]] == [2, 4]
    chosen = {row["step"]: row for row in result["kept"]}[weights["step"]]
    assert chosen["validation"] == max(row["validation"] for row in result["kept"]) == weights["dice"]
    # Kept in float16.
    assert chosen["test"] == pytest.approx(own["dice"].mean(), abs=0.02)


def test_slices_and_volumes_are_scored_by_both_protocols(run, tmp_path):
    folder = tmp_path / "data" / "acdc"
    write_set(folder, 50)
    items = pd.read_csv(folder / "items.csv")
    # The last patient is tested: one volume of two slices, and one of one, which has nothing in it.
    items = items.drop(columns=["sequence", "split_image"]).assign(patient=items["sequence"], frame=1, slice=0)
    items.loc[items["name"] == 10, "slice"] = 1
    items.loc[items["name"] == 11, "frame"] = 2
    items.to_csv(folder / "items.csv", index=False)
    Image.new("L", (48, 48)).save(folder / "masks" / "11.png")
    recipe = dict(data=str(folder), size=32, epochs=1, batch_size=3, overrides=TINY)
    (tmp_path / "acdc.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(dict(runs={"acdc": {"config": "acdc.yaml"}})))
    sweep(tmp_path / "table.yaml", tmp_path / "runs", progress=False)
    run("empty", "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    cases = pd.read_csv(tmp_path / "out/acdc_0.csv", dtype={"name": str}).set_index(["kind", "name"])
    assert set(cases.index) == {("slice", n) for n in ("9", "10", "11")} | {("volume", n) for n in ("3_1", "3_2")}
    assert (cases["patient"] == 3).all()
    sizes = cases[["truth", "predicted"]]
    both = sizes.loc[[("slice", "9"), ("slice", "10")]].sum()
    assert (both == sizes.loc["volume", "3_1"]).all(), "a volume is its slices together"
    for empty in (cases.loc["slice", "11"], cases.loc["volume", "3_2"]):
        predicted = empty["predicted"] > 0
        assert empty["truth"] == 0 and empty["dice_published"] == predicted and empty["hd95_published"] == 0
        assert empty["dice"] == 0 if predicted else np.isnan(empty["dice"])
    rest = cases[cases["truth"] > 0]
    assert (rest["dice"] == rest["dice_published"]).all(), "elsewhere the protocols agree"
    result = json.loads((tmp_path / "out/acdc_0.json").read_text())
    assert result["mean"]["slice"]["dice_published"] == pytest.approx(
        cases.loc["slice", "dice_published"].mean(), abs=1e-5
    )


def test_a_folder_without_runs_is_named(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("transfer", "--runs", tmp_path)
    assert "--runs: expected the folder of a sweep with finished runs" in capsys.readouterr().err
