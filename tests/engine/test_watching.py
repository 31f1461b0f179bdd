"""What a run shows of itself."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch.nn as nn
from PIL import Image

from rwkvlib.data import load_data
from rwkvlib.engine import train as module
from rwkvlib.engine.predict_files import overlay
from rwkvlib.engine.train import train
from rwkvlib.engine.watching import GAP, all_or_nothing, write_curves, write_samples


class Bright(nn.Module):
    """Says yes where the first channel is above a threshold, of normalised values."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return x[:, :1] - self.threshold


@pytest.fixture
def data():
    return load_data("synthetic:48", "validation", size=32)


def test_a_sheet_shows_images_truth_and_what_the_network_says(data, tmp_path):
    write_samples(Bright(-99), data, tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (3 * 32 + 2 * GAP, 8 * 32 + 7 * GAP, 3)
    top, middle, bottom = (sheet[y : y + 32, -32:] for y in (0, 32 + GAP, 2 * (32 + GAP)))
    assert np.array_equal(top, data.images[-1]) and (sheet[:, 32:34] == 255).all()
    assert np.array_equal(middle, overlay(data.images[-1], data.masks[-1]))
    assert np.array_equal(bottom, overlay(data.images[-1], np.ones((32, 32), int)))
    write_samples(Bright(99), data, tmp_path / "b.png")
    other = np.asarray(Image.open(tmp_path / "b.png"))
    assert np.array_equal(other[-32:, -32:], top) and np.array_equal(other[:66], sheet[:66]), "the same images"


def test_curves_show_what_there_is(tmp_path):
    rows = [dict(step=s, loss=1 / s, dice=d) for s, d in ((1, float("nan")), (2, 0.5), (3, 0.4))]
    write_curves(rows, "dice", tmp_path / "both.png")
    write_curves([dict(step=1, loss=1.0)], "dice", tmp_path / "loss.png")
    both, loss = (Image.open(tmp_path / f"{name}.png").size for name in ("both", "loss"))
    assert both[0] == loss[0] and both[1] == 2 * loss[1]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["both.png", "loss.png"]


def test_a_run_with_progress_draws_its_end_and_a_silent_one_nothing(tmp_path, recipe):
    log = train(recipe(), tmp_path / "command")
    assert [f.name for f in (tmp_path / "command" / "samples").iterdir()] == ["step_000006.png"], (
        "a short run: the last"
    )
    assert (tmp_path / "command" / "curves.png").exists()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "command" / "log.csv"), pd.DataFrame(log))
    assert train(recipe(), tmp_path / "call", progress=False)[-1]["loss"] == log[-1]["loss"], "nor do they change a bit"
    assert {"log.csv"} == {f.name for f in (tmp_path / "call").iterdir()} & {"log.csv", "curves.png", "samples"}


def test_several_classes_have_a_score_each(tmp_path, recipe):
    config = recipe(data="synthetic-abdomen:1", num_classes=9, loss="synapse", size=48, steps=1)
    (row,) = train(config, tmp_path, progress=False)
    each = [row[f"dice_{number}"] for number in range(1, 9)]
    assert np.nanmean(each) == pytest.approx(row["dice"], abs=0.2) and "dice_0" not in row


@pytest.mark.parametrize(("predicted", "said"), [([0, 0], "nothing"), ([64, 64], "every pixel"), ([0, 64], None)])
def test_all_or_nothing_is_said(predicted, said):
    scores = pd.DataFrame({"name": ["a", "b"], "truth": [3, 0], "predicted": predicted})
    found = all_or_nothing(scores, 64)
    assert (found is None) if said is None else f"marks {said} in all of the 2 images" in found
    assert all_or_nothing(scores.assign(truth=0), 64) is None


def test_a_budget_for_few_steps_is_said(tmp_path, recipe, monkeypatch, capsys):
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 10))
    train(recipe(epochs=10_000, budget_seconds=3), tmp_path, progress=True)
    said = capsys.readouterr()
    assert re.search(r"3 seconds will do for about \d\d steps; fewer than 100 teach little", said.out + said.err)
