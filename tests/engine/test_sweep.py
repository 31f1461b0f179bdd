"""A table of recipes and seeds: each run once, whatever happens in between."""

import hashlib
import itertools
import json
import os
import signal
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from PIL import Image

from rwkvlib.__main__ import main
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.engine import sweep as module
from rwkvlib.engine import train as trainer
from rwkvlib.engine.checkpoint import states
from rwkvlib.engine.sweep import read_table, sweep


@pytest.fixture
def write_table(tmp_path, write_recipe):
    write_recipe()

    def write(runs, **fields):
        (tmp_path / "table.yaml").write_text(yaml.safe_dump(dict(runs=runs, **fields)))
        return tmp_path / "table.yaml"

    return write


def test_a_table_is_recipes_times_seeds(write_table):
    runs = {"a": {"config": "recipe.yaml"}, "b": {"config": "recipe.yaml", "lr": 0.1, "overrides": {"ccm": False}}}
    table = read_table(write_table(runs, seeds=[3, 4], budget_seconds=5, test="validation"))
    assert list(table) == ["a_3", "b_3", "a_4", "b_4"]
    config, test = table["b_4"]
    assert (config.seed, config.lr, config.budget_seconds, test) == (4, 0.1, 5, "validation")
    assert config.overrides["ccm"] is False and config.overrides["dims"] == (8, 8, 16, 16)


def test_results_are_collected_and_finished_runs_skipped(tmp_path, write_table, monkeypatch):
    path = write_table({"t": {"config": "recipe.yaml", "epochs": 1}}, seeds=[0, 1])
    table = sweep(path, tmp_path / "out", progress=False)
    assert list(table["name"]) == ["t_0", "t_1"] and table["dice"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "table.csv"), table)
    assert [row["name"] for row in json.loads((tmp_path / "out" / "table.json").read_text())] == ["t_0", "t_1"]
    result = json.loads((tmp_path / "out" / "t_1.json").read_text())
    assert result["provenance"]["seed"] == 1 and result["log"][0]["step"] == 2 and result["seconds"] > 0
    cases = pd.read_csv(tmp_path / "out" / "t_1.csv")
    assert len(cases) == 2 and cases["dice"].mean() == pytest.approx(result["mean"]["dice"], abs=1e-6)
    other = json.loads((tmp_path / "out" / "t_0.json").read_text())
    assert other["config_hash"] == result["config_hash"] and other["data_hash"] == result["data_hash"]
    assert list(result["data_hash"]) == ["train", "validation", "test"] and len(set(result["data_hash"].values())) == 3
    assert str(tmp_path) not in json.dumps(result)
    monkeypatch.setattr(module, "train", lambda *args, **kwargs: pytest.fail("a finished run was trained again"))
    pd.testing.assert_frame_equal(sweep(path, tmp_path / "out", progress=False), table)
    with pytest.raises(ValueError, match=r"out: .*t_0\.json' is of another recipe"):
        sweep(write_table({"t": {"config": "recipe.yaml", "epochs": 2}}), tmp_path / "out", progress=False)


def test_the_parts_of_a_table_make_the_whole(tmp_path, write_table):
    path = write_table({"a": {"config": "recipe.yaml", "epochs": 1}, "b": {"config": "recipe.yaml"}}, seeds=[0, 1])
    settings = ["epochs=2", "lr=0.1"]
    assert [c.epochs for c, _ in read_table(path, settings).values()] == [2] * 4
    first = sweep(path, tmp_path / "out", progress=False, part="1/2", settings=settings)
    assert list(first["name"]) == ["a_0", "a_1"] and list(first["steps"]) == [4, 4]
    both = sweep(path, tmp_path / "out", progress=False, part="2/2", settings=settings)
    assert list(both["name"]) == ["a_0", "b_0", "a_1", "b_1"]
    provenance = json.loads((tmp_path / "out" / "b_1.json").read_text())["provenance"]
    assert provenance["command"] == "python -m rwkvlib sweep table.yaml epochs=2 lr=0.1 --out out --part 2/2"
    for part in ("0/2", "3/2", "1", "a/b", ""):
        with pytest.raises(ValueError, match="part: expected K/N with K from 1 to N, got"):
            sweep(path, tmp_path / "out", part=part)


def test_some_runs_are_chosen_by_their_names(tmp_path, write_table):
    from rwkvlib.engine.train import train

    train(
        next(iter(read_table(write_table({"a": {"config": "recipe.yaml", "epochs": 1}})).values()))[0], tmp_path / "s"
    )
    start = {"config": "recipe.yaml", "epochs": 1, "pretrained": str(tmp_path / "s")}
    path = write_table({"a": {"config": "recipe.yaml", "epochs": 1}, "b": start}, seeds=[0, 1])
    main(["sweep", str(path), "--out", str(tmp_path / "out"), "--only", "^b_[1-9]"])
    assert [file.name for file in sorted((tmp_path / "out").glob("*_?.json"))] == ["b_1.json"]
    result = json.loads((tmp_path / "out/b_1.json").read_text())
    weights = hashlib.sha256((tmp_path / "s/model.safetensors").read_bytes()).hexdigest()
    assert result["data_hash"]["pretrained"] == weights and result["config"]["pretrained"] == "s"
    assert list(sweep(path, tmp_path / "out", progress=False, only="_0")["name"]) == ["a_0", "b_0", "b_1"]
    with pytest.raises(ValueError, match="only: no run's name holds 'c'; there are a_0, b_0, a_1, b_1"):
        sweep(path, tmp_path / "out", only="c")


def test_a_killed_sweep_goes_on_with_the_run_it_was_in(tmp_path, write_table, start_process, monkeypatch):
    path = write_table({"t": {"config": "recipe.yaml", "epochs": 25}}, seeds=[0, 1])
    process = start_process("-m", "rwkvlib", "sweep", path, "--out", tmp_path / "out")
    deadline = time.monotonic() + 90
    while not states(tmp_path / "out/runs/t_1") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stdout.read()
    assert (tmp_path / "out" / "t_0.json").exists() and not (tmp_path / "out" / "t_1.json").exists()
    done = int(states(tmp_path / "out/runs/t_1")[-1].name[5:])
    before, train, logs = (tmp_path / "out" / "t_0.json").read_bytes(), module.train, []

    def seen(config, out, **kwargs):
        steps = [int(path.name[5:]) for path in states(out)]
        logs.append((config.seed, steps[-1]))
        return train(config, out, **kwargs)

    monkeypatch.setattr(module, "train", seen)
    table = sweep(path, tmp_path / "out", progress=False)
    assert logs == [(1, done)] and 0 < done < 50 and list(table["steps"]) == [50, 50]
    assert (tmp_path / "out" / "t_0.json").read_bytes() == before


def test_one_failing_run_does_not_cost_the_others_theirs(tmp_path, write_table, capsys):
    runs = {"bad": {"config": "recipe.yaml", "batch_size": 64}, "good": {"config": "recipe.yaml", "epochs": 1}}
    with pytest.raises(RuntimeError, match=r"runs: bad_0 failed \(ValueError: batch_size: expected at most the 8"):
        sweep(write_table(runs), tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "good_0.json").exists() and not (tmp_path / "out" / "bad_0.json").exists()
    assert list(pd.read_csv(tmp_path / "out" / "table.csv")["name"]) == ["good_0"]
    with pytest.raises(SystemExit, match=r"^error: runs: bad_0 failed \(ValueError: batch_size: "):
        main(["sweep", str(tmp_path / "table.yaml"), "--out", str(tmp_path / "out")])
    assert "Traceback" not in capsys.readouterr().err


def test_a_budget_holds_for_every_run(tmp_path, write_table, monkeypatch):
    ticks = itertools.count()
    for place in (module, trainer):
        monkeypatch.setattr(place, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 10))
    runs = {name: {"config": "recipe.yaml", "model": name} for name in ("rwkv_unet_t", "unet")}
    runs["unet"]["overrides"] = {"channels": [4, 8], "strides": [2]}
    path = write_table(runs, budget_seconds=1.5)
    (tmp_path / "recipe.yaml").write_text("data: synthetic:8\nsize: 32\nepochs: 10000\nbatch_size: 4\n")
    table = sweep(path, tmp_path / "out", progress=False)
    assert list(table["model"]) == ["rwkv_unet_t", "unet"]
    assert (table["seconds"] >= 1.5).all() and (table["steps"] <= 15).all(), "the time ends it, and not the epochs"


def test_a_run_is_scored_on_its_own_split_by_its_own_protocol(tmp_path, write_table, monkeypatch):
    root = tmp_path / "set"
    rows = ["name,split,by_sequence"]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(8):
        for folder, pixels in zip(("images", "masks"), synthetic_polyps(i, 32), strict=True):
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
        splits = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
        rows.append(f"{i},{splits[i]},{splits[7 - i]}")
    (root / "items.csv").write_text("\n".join(rows))
    protocols, evaluate = [], module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *a, **kw: (protocols.append(kw["protocol"]), evaluate(*a, **kw))[1])
    fields = {"config": "recipe.yaml", "data": "set", "epochs": 1, "split": "by_sequence", "protocol": "published"}
    monkeypatch.chdir(tmp_path)
    sweep(write_table({"t": fields}), tmp_path / "out", progress=False)
    assert list(pd.read_csv(tmp_path / "out/t_0.csv")["name"]) == [0, 1] and protocols == ["published"]
    hashes = json.loads((tmp_path / "out/t_0.json").read_text())["data_hash"]
    for split, digest in hashes.items():
        assert digest == load_data(root, split, size=32, column="by_sequence").sha256()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(runs={"a": {}}), "config: expected the recipe of run 'a', got none"),
        (dict(runs={"a": {"config": "recipe.yaml", "lrr": 1}}), "lrr: unknown name 'lrr'; near ones: lr"),
        (dict(runs=["a"]), "table: expected runs and any of"),
        (dict(runs={}, seed=[1]), "table: expected runs and any of"),
    ],
)
def test_bad_tables_are_named(fields, message, write_table):
    with pytest.raises(ValueError, match=message):
        read_table(write_table(**fields))
