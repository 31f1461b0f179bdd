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
from rwkvlib.engine import evaluate as engine
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.evaluate import check_cases, evaluate
from rwkvlib.engine.metrics import published_columns, score
from tests.conftest import TINY


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
    published = evaluate(Reader(2), data, protocol="published")
    np.testing.assert_allclose(published["dice"], [1, 0.5, 0, 0, 1])
    np.testing.assert_allclose(published["hd95"], [0, 2, 0, 0, 0])
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
    published = evaluate(Reader(4), data, protocol="published")
    assert (
        published["hd95"].iloc[0] == score(found[[2, 4, 0, 5]], truth[[2, 4, 0, 5]], 4, protocol="published")[0]["hd95"]
    )
    assert set(published["hd95_unit"]) == {"pixel"}


def test_volumes_with_missing_slices_are_refused():
    empty = np.zeros((3, 16, 16))
    with pytest.raises(ValueError, match=r"volume 'a' to have every slice once, got \[1, 2, 4\]"):
        evaluate(Reader(2), told(empty, empty, volume="a", slice=[1, 4, 2]))
    with pytest.raises(ValueError, match="expected volume and slice for every item"):
        evaluate(Reader(2), told(empty, empty, volume=["a", None, "a"], slice=[1, 2, 3]))


def test_without_a_spacing_distances_are_in_pixels():
    mask = square((4, 4), (4, 4))
    for spacing, unit, distances in (({}, "pixel", [1, 1]), (dict(spacing_x=2.0, spacing_y=2.0), "mm", [2, 2])):
        table = evaluate(Reader(2), told(np.roll(mask, 1, axis=2), mask, **spacing))
        assert list(table["hd95"]) == distances and set(table["hd95_unit"]) == {unit}


@pytest.mark.parametrize(("axis", "mm"), [(2, 1.0), (1, 6.0)])
def test_each_axis_has_its_own_spacing(axis, mm):
    mask = square((4, 4))
    table = evaluate(Reader(2), told(np.roll(mask, 2, axis=axis), mask, spacing_x=0.5, spacing_y=3.0))
    assert list(table["hd95"]) == [mm]


def test_no_mean_mixes_millimetres_and_pixels():
    mask = square((4, 4), (4, 4))
    mixed = told(np.roll(mask, 1, axis=2), mask, spacing_x=[2.0, np.nan], spacing_y=[2.0, np.nan])
    for run in (lambda: evaluate(Reader(2), mixed), lambda: check_cases(mixed.items)):
        with pytest.raises(ValueError, match=r"items: .* cannot mix mm and pixels; 1 of 2 have none: 1; fill in"):
            run()
    assert set(evaluate(Reader(2), mixed, protocol="published")["hd95_unit"]) == {"pixel"}
    assert "hd95" not in evaluate(Reader(2), mixed, hd95=False)
    check_cases(mixed.items, protocol="published")
    one = evaluate(Reader(2), told(mask, mask))
    with pytest.raises(ValueError, match="table: a mean cannot mix HD95 in mm and pixel"):
        summarise(one.assign(hd95_unit=["mm", "pixel"]))


def test_a_volume_of_one_slice_scores_as_the_image_does():
    rng = np.random.default_rng(0)
    truth = square((2, 2), (5, 6))
    found = np.where(rng.random(truth.shape) > 0.1, truth, 1 - truth)
    for spacing in ({}, dict(spacing_x=0.7, spacing_y=1.5)):
        images = evaluate(Reader(2), told(found, truth, **spacing))
        deep = dict(spacing, spacing_z=9.0) if spacing else {}
        volumes = evaluate(Reader(2), told(found, truth, volume=["a", "b"], slice=[7, 1], **deep))
        assert list(volumes["name"]) == ["a", "b"]
        for column in ("dice", "hd95", "specificity", "hd95_unit"):
            assert list(volumes[column]) == list(images[column]), column


def test_slices_are_numbers_also_where_they_are_text_and_their_spacing_may_be_rounded():
    mask = square((4, 4), (4, 5), (4, 6))
    columns = dict(volume="a", slice=["10", "9", "08"], spacing_x=1.0, spacing_y=1.0, spacing_z=[3.0, 3.0, 3.0001])
    table = evaluate(Reader(2), told(mask, mask, **columns))
    assert list(table["dice"]) == [1] and list(table["hd95_unit"]) == ["mm"]
    with pytest.raises(ValueError, match="expected numbers in the column slice of volume 'a', got 'first'"):
        evaluate(Reader(2), told(mask, mask, volume="a", slice=["first", "2", "3"]))
    with pytest.raises(ValueError, match=r"one spacing for the slices of 'a', got \{'spacing_z': \[3.0, 3.1\]\}"):
        evaluate(Reader(2), told(mask, mask, **columns | dict(spacing_z=[3.0, 3.0, 3.1])))


@pytest.mark.parametrize("value", ["0,5", 0, -1.0, np.inf])
def test_a_spacing_that_is_none_is_named_with_its_item(value):
    mask = square((4, 4), (4, 5))
    data = told(mask, mask, spacing_x=[1.0, value], spacing_y=1.0)
    for run in (lambda: evaluate(Reader(2), data), lambda: check_cases(data.items)):
        with pytest.raises(ValueError, match="items: expected spacing_x of '1' to be in mm and above 0, got"):
            run()


def test_what_would_spoil_the_intervals_is_found_before_scoring():
    items = pd.DataFrame({"name": list("abc"), "patient": ["1", None, "2"], "slice": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"unit: 1 of 3 items have no 'patient': b; .* --unit name"):
        check_cases(items)
    check_cases(items, unit="name")
    for unit in ("slice", "sequence"):
        with pytest.raises(ValueError, match=rf"unit: expected one of \['name', 'patient'\], got {unit!r}"):
            check_cases(items, unit=unit)
    volumes = items.assign(volume="v", patient=["1", "1", "2"])
    with pytest.raises(ValueError, match="unit: expected one 'patient' for each case, got several for 'v'"):
        check_cases(volumes)
    with pytest.raises(ValueError, match="every slice once"):
        check_cases(volumes.assign(slice=[1, 2, 4], patient="1"))


def test_the_old_name_of_the_published_protocol_is_read():
    data = told(square((4, 4), None), square(None, None))
    pd.testing.assert_frame_equal(
        evaluate(Reader(2), data, protocol="paper"), evaluate(Reader(2), data, protocol="published")
    )
    assert list(published_columns(pd.DataFrame(columns=["dice_paper", "hd95_paper_own_size", "paper"]))) == [
        "dice_published",
        "hd95_published_own_size",
        "paper",
    ]


def test_what_is_scored_is_not_lost_where_a_later_case_fails(tmp_path):
    data = told(square((4, 4), (5, 5), (6, 6)), square((4, 4), (5, 5), (6, 6)))
    parts = [
        SegmentationData(data.images[i : i + 1], data.masks[i : i + 1], data.items[i : i + 1].reset_index(drop=True))
        for i in range(3)
    ]
    parts[2].masks[0, 3, 3] = 9
    file = tmp_path / "unfinished.csv"
    with pytest.raises(ValueError, match=r"mask: item '2' has the values 0, 1, 9, expected .* 0 to 1") as error:
        evaluate(Reader(2), iter(parts), unfinished=file)
    assert "2 cases were scored before" in error.value.__notes__[0] and str(file) in error.value.__notes__[0]
    assert list(pd.read_csv(file)["name"]) == [0, 1] and list(pd.read_csv(file)["dice"]) == [1, 1]

    def interrupted():
        yield parts[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(Reader(2), interrupted(), unfinished=file)
    assert list(pd.read_csv(file)["name"]) == [0]


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_the_network_sees_its_size_and_scores_are_of_the_datas(protocol):
    truth = square((6, 9), (20, 30), size=48)
    truth = np.kron(truth[:, :24, :20], np.ones((1, 2, 2), np.uint8))  # 48 x 40
    model, data = Reader(2), told(truth, truth)
    table = evaluate(model, data, protocol=protocol, size=96)
    assert model.seen == {(96, 96)} and table["truth"].iloc[0] == truth[0].sum()
    assert table["dice"].iloc[0] > 0.85


def test_the_published_resizing_is_scipys():
    """Cubic splines there, nearest neighbour back, slice by slice, as the published test calls zoom."""
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 30, (2, 20, 28), dtype=np.uint8)
    data = SegmentationData(np.repeat(grey[..., None], 3, -1), np.zeros_like(grey), pd.DataFrame({"name": ["a", "b"]}))
    kept = []

    class Recorder(Reader):
        def forward(self, x):
            kept.append(x[:, 0] * 0.229 + 0.485)
            return super().forward(x)

    table = evaluate(Recorder(2), data, protocol="published", size=32)
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
    mask = square((4, 4), (5, 5))
    for value, classes, message in [
        (7, 3, "mask: item '1' has the values 0, 7, expected class indices 0 to 2, as the model has; correct the mask"),
        (
            255,
            2,
            "mask: item '1' has the values 0, 255, expected .* 0 to 1, as the model has; write 1 where it has 255",
        ),
    ]:
        bad = mask.copy()
        bad[1] *= value
        model = Reader(classes)
        with pytest.raises(ValueError, match=message):
            evaluate(model, told(mask * 0, bad), batch_size=1)


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


def test_one_case_has_a_mean_and_no_interval(tmp_path, capsys):
    model = create_model("rwkv_unet_t", **TINY)
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model="rwkv_unet_t", overrides=TINY, size=32))
    main(["evaluate", str(tmp_path / "m.safetensors"), "synthetic:4"])
    printed = capsys.readouterr().out
    assert "(no interval of fewer than two units; 1 cases, 0 undefined)" in printed and "nan" not in printed


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
    out = tmp_path / "again"
    main(["evaluate", str(checkpoint), str(volumes), "--protocol", "published", "--unit", "name", "--out", str(out)])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["protocol"] == "published" and summary["overall"]["dice"]["units"] == 4
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


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, create_model("rwkv_unet_t", **TINY), dict(model="rwkv_unet_t", overrides=TINY, size=32))
    return str(path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], dict(flips=False, protocol="strict", batch_size=16, size=32, side=32)),
        (["--flips", "--batch-size", "2"], dict(flips=True, batch_size=2)),
        (["--native", "--protocol", "published"], dict(protocol="published", size=32, side=128)),
    ],
    ids=str,
)
def test_the_command_hands_its_options_on(options, expected, checkpoint, monkeypatch):
    class Stop(Exception):
        pass

    def spy(model, data, **given):
        part = data if isinstance(data, SegmentationData) else next(iter(data))
        given["side"] = part.images.shape[1]
        assert {key: given[key] for key in expected} == expected
        raise Stop

    monkeypatch.setattr("rwkvlib.engine.evaluate.evaluate", spy)
    with pytest.raises(Stop):
        main(["evaluate", checkpoint, "synthetic:4", *options])


def test_the_command_checks_before_it_scores(volumes, checkpoint, tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("scored")

    monkeypatch.setattr("rwkvlib.engine.evaluate.evaluate", refuse)
    table = pd.read_csv(volumes / "items.csv")
    for column, message in [
        ("patient", "unit: 3 of 12 items have no 'patient': 1_0, 1_1, 1_2; fill them in, or take --unit name"),
        ("spacing_z", "a mean cannot mix mm and pixels; 1 of 4 have none: 1; fill in spacing_x"),
    ]:
        table.assign(**{column: table[column].where(table["volume"] != 1)}).to_csv(volumes / "items.csv", index=False)
        with pytest.raises(SystemExit):
            main(["evaluate", checkpoint, str(volumes), "--out", str(tmp_path / "out")])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_keeps_finished_work_and_prints_the_unit(volumes, checkpoint, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    main(["evaluate", checkpoint, str(volumes), "--out", str(out)])
    assert "hd95 (mm) " in capsys.readouterr().out
    main(["evaluate", checkpoint, str(volumes), "--protocol", "paper"])
    printed = capsys.readouterr().out
    assert "hd95 (pixels)" in printed and "protocol published" in printed
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("rwkvlib.analysis.statistics.summarise", lambda *_: (_ for _ in ()).throw(ValueError("late")))
        main(["evaluate", checkpoint, str(volumes), "--out", str(tmp_path / "late")])
    assert len(pd.read_csv(tmp_path / "late" / "cases.csv")) == 4
    real, calls = engine.score, []

    def breaks(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("truth: broken")
        return real(*args, **kwargs)

    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(engine, "score", breaks)
        main(["evaluate", checkpoint, str(volumes), "--out", str(tmp_path / "cut")])
    assert "3 cases were scored before" in capsys.readouterr().err
    assert list(pd.read_csv(tmp_path / "cut" / "unfinished.csv")["name"]) == [0, 1, 2]
    # A wrong mask is told before any is scored.
    bad = np.asarray(Image.open(volumes / "masks" / "3_2.png")).copy()
    bad[0, 0] = 5
    Image.fromarray(bad).save(volumes / "masks" / "3_2.png")
    with pytest.raises(SystemExit):
        main(["evaluate", checkpoint, str(volumes), "--out", str(tmp_path / "wrong")])
    assert "masks/3_2.png has values 0, 1, 5" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


def test_names_of_patients_stay_text(volumes, checkpoint, tmp_path):
    text = (volumes / "items.csv").read_text().splitlines()
    head, rows = text[0], [line.rpartition(",") for line in text[1:]]
    (volumes / "items.csv").write_text("\n".join([head] + [f"{start},00{end}" for start, _, end in rows]))
    assert set(load_data(volumes, size=16).items["patient"]) == {"000", "001"}
    main(["evaluate", checkpoint, str(volumes), "--out", str(tmp_path / "out")])
    assert set(pd.read_csv(tmp_path / "out" / "cases.csv", dtype=str)["patient"]) == {"000", "001"}


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


def test_the_command_replaces_results_on_request_only(volumes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = create_model("rwkv_unet_t", **TINY)
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model="rwkv_unet_t", overrides=TINY, size=32))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/summary.json").write_text("mine")
    arguments = ["evaluate", "~/m.safetensors", str(volumes), "--out", "~/out", "--split", "all"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "summary.json' exists already; choose another folder" in capsys.readouterr().err
    assert [f.read_text() for f in (tmp_path / "out").iterdir()] == ["mine"]
    main([*arguments, "--overwrite"])
    assert json.loads((tmp_path / "out/summary.json").read_text())["split"] == "all"
    assert "4 cases" in capsys.readouterr().out


def test_masks_of_other_classes_than_the_models_are_named_before_scoring(volumes, tmp_path, capsys):
    model = create_model("rwkv_unet_t", **TINY)
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model="rwkv_unet_t", overrides=TINY, size=32))
    mask = sorted((volumes / "masks").iterdir())[-1]
    Image.fromarray(np.asarray(Image.open(mask)) * 0 + 2).save(mask)
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "m.safetensors"), str(volumes)])
    expected = f"masks/{mask.name} has values 2. Renumber them from 0, the background, or set num_classes to 3"
    assert expected in capsys.readouterr().err
