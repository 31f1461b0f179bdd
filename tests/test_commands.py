"""Training, evaluation, prediction and their command line, on tiny synthetic data."""

import json
import re

import pytest
from PIL import Image

from rwkvlib.__main__ import main
from rwkvlib.data import synthetic_polyps


def test_the_command_line_trains_evaluates_and_predicts(tmp_path, write_recipe):
    run, images, masks = tmp_path / "run", tmp_path / "images", tmp_path / "masks"
    main(["train", str(write_recipe(data="synthetic:4", epochs=1)), f"out={run}"])
    checkpoint, out = str(run / "model.safetensors"), tmp_path / "result"
    main(["evaluate", checkpoint, "synthetic:4", "--out", str(out)])
    result = json.loads((out / "summary.json").read_text())
    assert len(result["log"]) == 1 and result["config"]["seed"] == 0
    assert {"provenance", "training", "overall", "classes", "checkpoint"} <= set(result)
    assert str(tmp_path) not in json.dumps(result), "a result must not depend on where files are kept"
    images.mkdir()
    for i, size in enumerate((40, 53)):
        Image.fromarray(synthetic_polyps(i, size)[0]).save(images / f"{i}.png")
    main(["predict", checkpoint, str(images), "--out", str(masks)])
    assert {f.name: Image.open(f).size for f in masks.iterdir()} == {"0.png": (40, 40), "1.png": (53, 53)}


def test_scores_are_shown_by_the_names_of_the_classes(tmp_path, write_recipe, capsys):
    data = tmp_path / "organs"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    for i, split in enumerate(("train", "validation", "test")):
        image, mask = synthetic_polyps(i, 32)
        mask[:4, :4] = 2
        Image.fromarray(image).save(data / f"images/{i}.png")
        Image.fromarray(mask).save(data / f"masks/{i}.png")
        with (data / "items.csv").open("a") as items:
            items.write(f"name,split\n{i},{split}\n" if i == 0 else f"{i},{split}\n")
    (data / "dataset.json").write_text(json.dumps({"classes": ["background", "polyp", "corner"]}))
    recipe = str(write_recipe(data=str(data), epochs=1, batch_size=1))
    with pytest.raises(SystemExit, match="2"):
        main(["train", recipe, f"out={tmp_path / 'binary'}"])
    assert "names 3 classes (background, polyp, corner), got a model of 2" in capsys.readouterr().err
    main(["train", recipe, f"out={tmp_path / 'run'}", "num_classes=3", "loss=synapse"])
    main(["evaluate", str(tmp_path / "run"), str(data), "--out", str(tmp_path / "scores")])
    shown = capsys.readouterr().out
    assert "class 1 (polyp): dice 0." in shown and "class 2 (corner): dice 0." in shown and "(background)" not in shown
    result = json.loads((tmp_path / "scores/summary.json").read_text())
    assert result["class_names"] == ["background", "polyp", "corner"] and set(result["classes"]) == {"1", "2"}
    assert result["checkpoint"]["class_names"] == ["background", "polyp", "corner"]


def test_each_command_has_an_example_in_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert {"train", "evaluate", "predict", "export"} <= set(names)
    for name in names:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert f"example: rwkvlib {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "synthetic:4"], "no file 'nowhere'"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err
