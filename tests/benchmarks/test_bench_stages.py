"""The table of stages: every stage is timed on its own input, forward and backward."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from rwkvlib import create_model
from tests.conftest import TINY

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("bench_stages")


def test_each_stage_has_the_input_that_it_has_in_the_network(bench):
    model = create_model("rwkv_unet_t", **TINY)
    found = bench.inputs_of(model, torch.rand(1, 3, 32, 32))
    assert list(found) == list(bench.STAGES), "in the order of the table"
    shapes = {stage: [tuple(t.shape[1:]) for t in bench.tensors(x)] for stage, x in found.items()}
    assert shapes["stem"] == [(3, 32, 32)] and shapes["stage 4"] == [(16, 4, 4)]
    assert shapes["CCM"] == [(16, 4, 4), (8, 8, 8), (8, 16, 16)] and shapes["decoder 4"] == [(16, 16, 16)]
    assert shapes["head"] == [(24, 32, 32)]
    assert "CCM" not in bench.inputs_of(create_model("rwkv_unet_t", **TINY, ccm=False), torch.rand(1, 3, 32, 32))


def test_both_ways_reach_the_weights_and_the_input(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.autograd, "grad", lambda outputs, wanted, ones: asked.append(len(wanted)))
    stage = torch.nn.Conv2d(3, 4, 1)
    for needs_input in (True, False):
        bench.both_ways(stage, torch.rand(1, 3, 8, 8), needs_input)["both"]()
    assert asked == [3, 2]


def test_shares_are_of_the_whole_step_and_a_file_is_written_where_asked(bench, monkeypatch, tmp_path, capsys):
    seconds = {"forward": 1.0, "both": 3.0}

    def clock(contenders, repeats, clock):
        assert repeats == 2 and clock is bench.time.process_time
        return {key: 100.0 if key[1] == bench.WHOLE else seconds[key[2]] for key in contenders}

    monkeypatch.setattr(bench, "interleaved", clock)
    light = "rwkv_unet_t=" + json.dumps(TINY)
    options = ["--models", light, "unet_p", "--size", "32", "--batch", "2", "--repeats", "2", "--cpu-time"]
    for more in ([], ["--out", str(tmp_path / "out.json")]):
        monkeypatch.setattr(sys, "argv", ["bench_stages.py", *options, *more])
        bench.main()
        assert len(list(tmp_path.iterdir())) == bool(more)
    result = json.loads((tmp_path / "out.json").read_text())
    rows = {row["stage"]: row for row in result["rows"][light]}
    assert len(rows) == len(bench.STAGES) + 2
    assert rows["stem"] == dict(stage="stem", forward=1, backward=2, seconds=3, share=0.03)
    assert rows["rest"] == dict(stage="rest", seconds=100 - 3 * len(bench.STAGES), share=0.67)
    assert [row["stage"] for row in result["rows"]["unet_p"]] == ["whole step"]
    assert "48,904 parameters" in capsys.readouterr().out
