"""How far running statistics lag: the experiment on tiny data, and what its stored results must show."""

import json
import sys
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).parents[2] / "results/batchnorm").glob("*.json"))


def test_a_run_gives_three_scores_for_the_same_weights(load_experiment, monkeypatch, tmp_path):
    script = load_experiment("batchnorm")
    for name, value in dict(RESULTS=tmp_path, TRAIN=32, VALIDATION=4, STEPS=4, EVERY=2).items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(sys, "argv", ["batchnorm.py", "--data", "tiny=synthetic:32", "--size", "32"])
    script.main()
    found = json.loads((tmp_path / "tiny.json").read_text())
    assert [row["step"] for row in found["validations"]] == [2, 4] and found["images"]["train"] == 32
    for row in found["validations"]:
        assert row["images"] == 16 and all(0 <= row[kind] <= 1 for kind in ("running", "renewed", "all_images"))
    seconds = found["seconds"]
    assert 0 < seconds["renewing"] < seconds["training"] and 0 < seconds["share"] < 1
    assert found["provenance"]["command"] == "python experiments/batchnorm.py --data tiny=synthetic:32 --size 32"


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_what_is_validated_is_what_the_weights_are_worth(file):
    found = json.loads(file.read_text())
    rows = found["validations"]
    assert rows[-1]["step"] == 72 and found["recipe"]["batch_size"] == 16
    assert all(abs(row["renewed"] - row["all_images"]) < 0.02 for row in rows)
    assert max(row["renewed"] - row["running"] for row in rows) > 0.1, "which the running ones hide"
    assert found["seconds"]["share"] < 0.05
