"""Evaluation: what a case is, both protocols, resizing, and the command's report."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.ndimage import zoom

from rwkvlib import create_model, load_pretrained
from rwkvlib.__main__ import main
from rwkvlib.analysis.statistics import summarise
from rwkvlib.data import SegmentationData, iter_cases, load_data
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.metrics import score

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])


class Reader(torch.nn.Module):
    """Says the class that the image's first channel spells, 10 grey levels a class; one channel for binary masks."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.seen = set()
        self.p = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.seen.add(tuple(x.shape[2:]))
        grey = x[:, 0] * 0.229 + 0.485  # normalise undone
        if self.classes == 2:
            return (grey * 25.5 - 0.5)[:, None]
        return -torch.stack([(grey * 25.5 - c).abs() for c in range(self.classes)], 1)


def told(predictions, masks, **columns):
    """A data set whose images tell the reader what to predict."""
    images = np.repeat((np.asarray(predictions, np.uint8) * 10)[..., None], 3, axis=-1)
    items = {"name": [f"{i}" for i in range(len(masks))], **columns}
    return SegmentationData(images, np.asarray(masks, np.uint8), pd.DataFrame(items))


def square(*corners, size=16):
    out = np.zeros((len(corners), size, size), np.uint8)
    for mask, corner in zip(out, corners, strict=True):
        if corner is not None:
            mask[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = 1
    return out


def test_scores_by_hand():
    """Right; two pixels to the right; a miss; nothing there, nothing found; nothing there, something found."""
    truth = square((4, 4), (4, 4), (4, 4), None, None)
    found = square((4, 4), (4, 6), None, None, (4, 4))
    data = told(found, truth)
    table = evaluate(Reader(2), data, batch_size=2)
    np.testing.assert_allclose(table["dice"], [1, 0.5, 0, np.nan, 0])
    np.testing.assert_allclose(table["iou"], [1, 1 / 3, 0, np.nan, 0])
    np.testing.assert_allclose(table["hd95"], [0, 2, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(table["sensitivity"], [1, 0.5, 0, np.nan, np.nan])
    assert list(table["name"]) == data.names and set(table["hd95_unit"]) == {"pixel"}
    paper = evaluate(Reader(2), data, protocol="paper")
    np.testing.assert_allclose(paper["dice"], [1, 0.5, 0, 0, 1])
    np.testing.assert_allclose(paper["hd95"], [0, 2, 0, 0, 0])
    quick = evaluate(Reader(2), data, hd95=False)
    assert "hd95" not in quick and quick["dice"].equals(table["dice"])


def test_a_case_is_a_volume_whatever_the_order_of_its_slices():
    rng = np.random.default_rng(0)
    truth = (rng.random((6, 16, 16)) > 0.5) * rng.integers(1, 4, (6, 16, 16))
    found = np.where(rng.random(truth.shape) > 0.3, truth, 0)
    columns = dict(
        volume=["b", "a", "b", "a", "b", "b"],
        slice=[3, 8, 1, 7, 2, 4],
        spacing_x=0.5,
        spacing_y=0.5,
        spacing_z=[3.0, 5.0, 3.0, 5.0, 3.0, 3.0],
        patient=[2, 1, 2, 1, 2, 2],
    )
    data = told(found, truth, **columns)
    table = evaluate(Reader(4), data)
    assert list(table["name"]) == ["b"] * 3 + ["a"] * 3 and list(table["class"]) == [1, 2, 3] * 2
    assert list(table["patient"]) == [2] * 3 + [1] * 3 and "slice" not in table and set(table["hd95_unit"]) == {"mm"}
    for name, places, spacing in (("b", [2, 4, 0, 5], (3, 0.5, 0.5)), ("a", [3, 1], (5, 0.5, 0.5))):
        for row in score(found[places], truth[places], 4, spacing=spacing):
            mine = table[(table["name"] == name) & (table["class"] == row["class"])].iloc[0]
            assert {key: mine[key] for key in row} == row
    paper = evaluate(Reader(4), data, protocol="paper")
    assert paper["hd95"].iloc[0] == score(found[[2, 4, 0, 5]], truth[[2, 4, 0, 5]], 4, protocol="paper")[0]["hd95"]
    assert set(paper["hd95_unit"]) == {"pixel"}


def test_volumes_with_missing_slices_are_refused():
    empty = np.zeros((3, 16, 16))
    with pytest.raises(ValueError, match=r"volume 'a' to have every slice once, got \[1, 2, 4\]"):
        evaluate(Reader(2), told(empty, empty, volume="a", slice=[1, 4, 2]))
    with pytest.raises(ValueError, match="expected volume and slice for every item"):
        evaluate(Reader(2), told(empty, empty, volume=["a", None, "a"], slice=[1, 2, 3]))


def test_without_a_spacing_distances_are_in_pixels():
    mask = square((4, 4), (4, 4))
    spacing = dict(spacing_x=[2.0, np.nan], spacing_y=[2.0, np.nan])
    table = evaluate(Reader(2), told(np.roll(mask, 1, axis=2), mask, **spacing))
    assert list(table["hd95"]) == [2, 1] and list(table["hd95_unit"]) == ["mm", "pixel"]


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_the_network_sees_its_size_and_scores_are_of_the_datas(protocol):
    truth = square((6, 9), (20, 30), size=48)
    truth = np.kron(truth[:, :24, :20], np.ones((1, 2, 2), np.uint8))  # 48 x 40
    model, data = Reader(2), told(truth, truth)
    table = evaluate(model, data, protocol=protocol, size=96)
    assert model.seen == {(96, 96)} and table["truth"].iloc[0] == truth[0].sum()
    assert table["dice"].iloc[0] > 0.85


def test_the_papers_resizing_is_scipys():
    """Cubic splines there, nearest neighbour back, slice by slice, as the published test calls zoom."""
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 30, (2, 20, 28), dtype=np.uint8)
    data = SegmentationData(np.repeat(grey[..., None], 3, -1), np.zeros_like(grey), pd.DataFrame({"name": ["a", "b"]}))
    kept = []

    class Recorder(Reader):
        def forward(self, x):
            kept.append(x[:, 0] * 0.229 + 0.485)
            return super().forward(x)

    table = evaluate(Recorder(2), data, protocol="paper", size=32)
    for image, seen, (_, row) in zip(grey, kept[0].numpy(), table.iterrows(), strict=True):
        expected = zoom(image / 255, (32 / 20, 32 / 28), order=3)
        np.testing.assert_allclose(seen, expected, atol=1e-5)
        labels = (expected * 25.5 > 0.5).astype(np.uint8)
        assert row["predicted"] == zoom(labels, (20 / 32, 28 / 32), order=0).sum()


def test_flips_reach_the_network():
    """Of a network that moves all to the right, the mean over mirror images leaves what both sides agree on."""

    class Moved(Reader):
        def forward(self, x):
            return super().forward(x).roll(1, -1)

    data = told(square((4, 4)), square((4, 4)))
    plain, averaged = (evaluate(Moved(2), data, flips=flips).iloc[0] for flips in (False, True))
    assert (plain["predicted"], plain["dice"]) == (16, 0.75)
    assert (averaged["predicted"], averaged["dice"]) == (8, pytest.approx(2 / 3))


def test_several_data_sets_are_scored_one_after_the_other():
    data = told(square((4, 4), (5, 5), None), square((4, 4), (4, 4), (1, 1)))
    parts = [
        SegmentationData(data.images[i : i + 1], data.masks[i : i + 1], data.items[i : i + 1].reset_index(drop=True))
        for i in range(3)
    ]
    pd.testing.assert_frame_equal(evaluate(Reader(2), iter(parts)), evaluate(Reader(2), data))


def test_labels_that_are_no_class_of_the_model_are_named():
    mask = square((4, 4)) * 7
    with pytest.raises(ValueError, match="truth: expected classes 0 to 2, got 0 to 7"):
        evaluate(Reader(3), told(mask * 0, mask))


def test_the_shipped_weights_find_synthetic_polyps():
    model, meta = load_pretrained("rwkv_unet_t_synthetic")
    table = evaluate(model, load_data("synthetic:80", "test", size=meta["size"]), hd95=False)
    assert table["dice"].mean() > 0.75


@pytest.fixture
def volumes(tmp_path):
    """Two patients with two volumes each, of two sizes, in the project's layout."""
    root = tmp_path / "heart"
    rows = ["name,split,volume,slice,spacing_z,spacing_y,spacing_x,patient"]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for v in range(4):
        for i in range(3):
            mask = square((2 + i, 4 + v), size=24 if v % 2 else 32)[0]
            Image.fromarray(mask * 200).save(root / "images" / f"{v}_{i}.png")
            Image.fromarray(mask).save(root / "masks" / f"{v}_{i}.png")
            rows.append(f"{v}_{i},test,{v},{i},4,0.5,0.5,{v // 2}")
    (root / "items.csv").write_text("\n".join(rows))
    return root


def test_cases_are_read_at_their_own_size(volumes):
    cases = list(iter_cases(volumes, "test"))
    assert [c.masks.shape for c in cases] == [(3, 32, 32), (3, 24, 24)] * 2
    assert [list(c.items["volume"]) for c in cases] == [[str(v)] * 3 for v in range(4)]
    with pytest.raises(ValueError, match=r"split: expected one of \['test'\], got 'x'"):
        list(iter_cases(volumes, "x"))
    abdomen = list(iter_cases("synthetic-abdomen:4", "validation"))
    assert len(abdomen) == 1 and abdomen[0].items["slice"].tolist() == list(range(32))


def test_resized_data_have_resized_spacing(volumes):
    items = load_data(volumes, size=16).items
    assert list(items["spacing_x"][:6]) == [1.0] * 3 + [0.75] * 3 and set(items["spacing_z"]) == {4}


def test_the_command_reports_cases_and_intervals(volumes, tmp_path, capsys):
    checkpoint, out = tmp_path / "m.safetensors", tmp_path / "out"
    model = create_model("rwkv_unet_t", **TINY)
    save_checkpoint(checkpoint, model, dict(model="rwkv_unet_t", overrides=TINY, size=32))
    main(["evaluate", str(checkpoint), str(volumes), "--out", str(out)])
    cases, summary = pd.read_csv(out / "cases.csv"), json.loads((out / "summary.json").read_text())
    assert list(cases["name"]) == [0, 1, 2, 3] and list(cases["patient"]) == [0, 0, 1, 1]
    assert summary["unit"] == "patient" and summary["overall"]["dice"]["units"] == 2
    assert summary["protocol"] == "strict" and summary["hd95_unit"] == ["mm"] and summary["scored_at"] == "own size"
    assert summary["classes"]["1"]["dice"]["mean"] == pytest.approx(cases["dice"].mean(), abs=1e-5)
    assert "provenance" in summary and str(tmp_path) not in json.dumps(summary)
    assert "intervals over 2 units of 'patient'" in capsys.readouterr().out
    assert sorted(f.name for f in out.iterdir()) == ["cases.csv", "summary.json"]
    main(["evaluate", str(checkpoint), str(volumes), "--protocol", "paper", "--unit", "name", "--out", str(out)])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["protocol"] == "paper" and summary["overall"]["dice"]["units"] == 4
    for arguments, message in [
        (["nowhere", "synthetic:4"], "no file 'nowhere'"),
        ([str(checkpoint), str(volumes), "--unit", "slice"], "unit: expected"),
        ([str(checkpoint), str(volumes), "--unit", "sequence"], "unit: expected one of"),
        ([str(checkpoint), str(volumes), "--column", "fold"], "column: expected one of"),
        ([str(checkpoint), str(tmp_path / "nothing")], "data: expected a folder or zip"),
    ]:
        with pytest.raises(SystemExit) as error:
            main(["evaluate", *arguments])
        assert error.value.code == 2 and message in capsys.readouterr().err


def test_a_summary_counts_a_case_once_and_its_undefined_classes():
    table = pd.DataFrame(
        {"name": ["a", "a", "b", "b"], "class": [1, 2] * 2, "dice": [1.0, 0.5, 0.25, np.nan], "sequence": [1, 1, 2, 2]}
    )
    found = summarise(table)
    assert found["unit"] == "sequence" and summarise(table.drop(columns="sequence"))["unit"] == "name"
    assert found["overall"]["dice"]["mean"] == 0.5 and found["overall"]["dice"]["cases"] == 2
    assert found["classes"]["2"]["dice"]["undefined"] == 1 and found["classes"]["2"]["dice"]["mean"] == 0.5
    assert set(found["classes"]) == {"1", "2"} and found["overall"]["dice"]["low"] == 0
    with pytest.raises(ValueError, match="unit: expected one 'sequence' for each case"):
        summarise(table.assign(sequence=[1, 2, 3, 3]))
