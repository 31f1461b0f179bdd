"""The experiment of chapter 15, on tiny data: what must hold whatever the training gives."""

import json
import sys

import pytest
import torch
from torch import nn


@pytest.fixture
def seeing(monkeypatch, load_experiment, tmp_path):
    module = load_experiment("seeing")
    small = dict(DATA="synthetic:32", SIZE=64, EPOCHS=1, DECAYS=(0, 10_000), BONUSES=(0,), RESULTS=tmp_path)
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    return module


def result(seeing, monkeypatch, tmp_path, *options):
    monkeypatch.setattr(sys, "argv", ["seeing.py", *options, "--runs", str(tmp_path / "runs")])
    seeing.main()
    return json.loads((tmp_path / f"{options[0]}.json").read_text())


def test_each_change_of_the_operator_is_measured_and_taken_back(seeing, monkeypatch, tmp_path):
    rows = result(seeing, monkeypatch, tmp_path, "range")["rows"]  # asserts itself that the changes were taken back
    found = {(row["change"], row["value"]): row for row in rows}
    assert len(found) == len(rows) == 1 + 2 + 1 + 3 + 4 + 1
    assert found["as trained", None]["difference"] == 0
    assert abs(found["decay", 0]["difference"]) < 0.01, "the trained decays are nearly 0"
    for key in (("decay", 10_000), ("own value only", None), ("off: all", None)):
        assert found[key]["difference"] != 0


def test_networks_are_trained_measured_and_not_trained_again(seeing, monkeypatch, tmp_path):
    options = "fields", "--seeds", "1", "--models"
    result(seeing, monkeypatch, tmp_path, *options, "U-Net, BatchNorm")
    runs = result(seeing, monkeypatch, tmp_path, *options, "U-Net, BatchNorm", "RWKV-UNet-T, no attention")["runs"]
    assert [run["model"] for run in runs] == ["U-Net, BatchNorm", "RWKV-UNet-T, no attention"]
    for run in runs:
        share = run["share_within"]
        assert len(share) == 33 and share == sorted(share) and share[-1] == 1
        assert len(run["field_32"]) == 32 and max(map(max, run["field_32"])) == 1
        assert run["far_swap"]["0"][0] > run["far_swap"]["48"][0] >= 0
        layers = run["beyond_32_by_layer"]
        assert len(layers) == (0 if "U-Net, B" in run["model"] else 8) and all(0 <= s <= 1 for s in layers.values())
    assert runs[0]["receptive_field_radius"] is not None and runs[1]["receptive_field_radius"] is None
    assert runs[0]["decays"] == runs[1]["decays"] == {}


def test_shares_and_swaps_of_a_network_that_sees_three_pixels(seeing):
    field = torch.zeros(8, 8)
    field[4, 4], field[4, 5] = 3, 1
    assert seeing.by_distance(field) == [0.75, 1, 1, 1, 1]
    torch.manual_seed(0)
    box = nn.Conv2d(3, 1, 3, padding=1)
    masks = torch.zeros(4, 32, 32)
    masks[:, 10:20, 10:20] = 1
    moved = seeing.far_swap(box, torch.randn(4, 3, 32, 32), masks)
    assert moved["0"][0] > 0 and moved["4"] == [0, 0, 0]
