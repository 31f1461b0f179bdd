"""Scores are kept with what they were made of: cases first, so that a result that is there is whole."""

import json

import pandas as pd
import pytest

from rwkvlib.engine import record
from rwkvlib.engine.record import config_hash, training_of, write_scores


def test_scores_are_written_with_their_recipe_and_origin(tmp_path):
    cases = pd.DataFrame({"name": ["a", "b"], "dice": [1 / 3, float("nan")]})
    about = dict(data_hash={"test": "0"}, mean=dict(dice=1 / 3))
    path = write_scores(tmp_path / "out", "t_0", cases, provenance={"seed": 0}, config={"lr": 1, "seed": 0}, **about)
    assert (tmp_path / "out/t_0.csv").read_text() == "name,dice\na,0.333333\nb,\n"
    found = json.loads(path.read_text())
    assert list(found) == ["name", "config", "config_hash", "data_hash", "mean", "provenance"]
    assert found["name"] == "t_0" and found["config_hash"] == config_hash({"seed": 7, "lr": 1})
    assert found["config_hash"] != config_hash({"seed": 0, "lr": 2})
    assert "config_hash" not in json.loads(write_scores(tmp_path, "x", cases, provenance={}).read_text())


def test_a_run_without_its_cases_has_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "write_cases", lambda *args: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        write_scores(tmp_path, "t_0", pd.DataFrame(), provenance={})
    assert not list(tmp_path.iterdir())


def test_the_record_of_a_training_names_no_place(tmp_path):
    assert training_of(tmp_path) == {}
    (tmp_path / "log.json").write_text("[]")
    (tmp_path / "config.json").write_text('{"data": "/somewhere/glas.zip", "seed": 3}')
    expected = dict(log=[], config={"data": "glas.zip", "seed": 3})
    assert training_of(tmp_path) == expected, "a run of a sweep"
    (tmp_path / "provenance.json").write_text('{"provenance": {"seed": 3}}')
    assert training_of(tmp_path) == expected | {"training": {"seed": 3}}
