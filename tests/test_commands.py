"""Training, evaluation, prediction and their command line, on tiny synthetic data."""

import json

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
