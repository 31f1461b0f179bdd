"""The long-range experiment, on few steps: what it must find does not depend on training."""

import json
import sys

import pytest

from rwkvlib.bookkit.results import find_result


@pytest.fixture
def run(monkeypatch, load_experiment):
    module = load_experiment("long_range")

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["long_range.py", *map(str, options)])
        module.main()

    return run


def test_what_it_writes_is_where_the_report_reads(load_experiment):
    module, found = load_experiment("long_range"), find_result("long_range/distances.json")
    assert module.OUT == found and set(module.FIRST) <= set(json.loads(found.read_text())["models"])


def test_a_trained_u_net_is_at_chance_beyond_its_radius_and_a_run_is_continued(run, tmp_path, capsys):
    out = tmp_path / "result.json"
    options = "--steps", 2, "--test", 8, "--out", out, "--models"
    run(*options, "U-Net, 3 levels", "--distances", 32)
    run(*options, "U-Net, 3 levels", "RWKV-UNet-T, no attention", "--distances", 32, 8)
    assert capsys.readouterr().out.count("side accuracy") == 4, "the first run is not repeated"
    result = json.loads(out.read_text())
    radius = {name: model["receptive_field_radius"] for name, model in result["models"].items()}
    assert 16 < radius["U-Net, 3 levels"] < 32
    assert radius["RWKV-UNet-T, no attention"] is None, "squeeze-excite in the stem sees the whole image"
    runs = {(r["model"], r["distance"]): r for r in result["runs"]}
    assert len(runs) == len(result["runs"]) == 4
    assert all(r["losses"] == [pytest.approx(r["loss_at_end"], abs=1e-4)] for r in result["runs"])
    blind = runs["U-Net, 3 levels", 32]
    assert not blind["sees_cue"] and blind["largest_change_by_cue"] == 0
    assert blind["side_accuracy"] == 0.5 and blind["side_accuracy_interval"] == [0.5, 0.5]
    for name, distance in runs.keys() - {("U-Net, 3 levels", 32)}:
        assert runs[name, distance]["sees_cue"] and runs[name, distance]["largest_change_by_cue"] > 0
    assert (
        result["provenance"]["seed"] == 0 and "experiments/long_range.py --steps 2" in result["provenance"]["command"]
    )


def test_bad_options_end_with_a_message(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--test", 7, "--out", tmp_path / "a.json")
    assert "--batch and --test: expected even numbers of images, got 8 and 7" in capsys.readouterr().err
    out = tmp_path / "b.json"
    out.write_text(json.dumps({"recipe": {"steps": 1}, "models": {}, "runs": []}))
    with pytest.raises(SystemExit):
        run("--out", out)
    assert "holds runs of another recipe" in capsys.readouterr().err


def test_augmented_runs_change_the_training_images_alone_and_can_be_repeated(run, tmp_path):
    names = ["RWKV-UNet-T", "RWKV-UNet-T, weak augmentation", "RWKV-UNet-T, strong augmentation"]
    options = "--steps", 2, "--test", 8, "--distances", 8, "--models", *names, "--out"
    found = []
    for out in (tmp_path / "a.json", tmp_path / "b.json"):
        run(*options, out)
        result = json.loads(out.read_text())
        assert len({json.dumps(result["models"][name]) for name in names}) == 1, "one network"
        found.append({r["model"]: r["losses"] for r in result["runs"]})
    assert found[0] == found[1]
    assert len({tuple(found[0][name]) for name in names}) == 3
