"""The audit finds what was planted, and nothing else."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts.__main__ import main
from data_scripts.audit import audit, groups_of
from rwkvlib.__main__ import main as command_line
from rwkvlib.data import synthetic_polyps


@pytest.fixture
def leaky(tmp_path):
    """Twelve images; 1 is a byte-wise copy of 0 on the other side, 3 of 2 compressed again and of another class, 5 of 4
    brighter; sequence b is torn; mask 6 is empty."""
    root = tmp_path / "leaky"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for i in range(12):
        image, mask = synthetic_polyps(i - 1 if i in (1, 3, 5) else i, 64)
        if i == 5:
            image = np.clip(image.astype(int) * 1.1, 0, 255).astype(np.uint8)
        suffix = "jpg" if i == 3 else "png"
        Image.fromarray(image).save(root / f"images/i{i}.{suffix}")
        Image.fromarray(mask * (i != 6)).save(root / f"masks/i{i}.png")
        rows.append(
            dict(
                name=f"i{i}",
                split="test" if i in (1, 8) else "train",
                split_other="train",
                label="y" if i == 3 else "x",
                sequence="b" if i in (8, 9) else f"s{i}",
            )
        )
    pd.DataFrame(rows).to_csv(root / "items.csv", index=False)
    return root


def test_planted_leaks_are_found(leaky):
    result = audit(leaky)
    assert result["exact_duplicates"] == [["i0", "i1"]]
    assert [(p["a"], p["b"]) for p in result["near_duplicates"]] == [("i0", "i1"), ("i2", "i3"), ("i4", "i5")]
    assert result["near_duplicates"][0] == {
        "a": "i0", "b": "i1", "correlation": 1.0, "masks_differ": 0.0, "differ_in": ["split", "label", "sequence"][::2]
    }  # fmt: skip
    assert result["crossing"] == {"split": 1, "split_other": 0, "label": 1, "sequence": 3}
    assert result["torn_groups"] == {"split": {"sequence": ["b"]}, "split_other": {"sequence": []}}
    assert result["empty_masks"] == ["i6"] and result["items"] == 12
    share = synthetic_polyps(0, 64)[1].mean()
    assert result["foreground"]["min"] == 0 and share <= result["foreground"]["max"]


def test_an_exact_copy_is_found_without_a_thumbnail_to_compare(tmp_path):
    """Two black images: no correlation is defined, yet they are the same."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for name in "ab":
            Image.fromarray(np.zeros((8, 8, 3) if part == "images" else (8, 8), np.uint8)).save(
                tmp_path / part / f"{name}.png"
            )
    (tmp_path / "items.csv").write_text("name\na\nb\n")
    assert audit(tmp_path)["exact_duplicates"] == [["a", "b"]]


def test_a_clean_set_is_clean(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(20):
        image, mask = synthetic_polyps(i, 64)
        Image.fromarray(image).save(tmp_path / f"images/{i}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{i}.png")
    (tmp_path / "items.csv").write_text(
        "name,split\n" + "".join(f"{i},{'train' if i < 10 else 'test'}\n" for i in range(20))
    )
    result = audit(tmp_path)
    assert result["near_duplicates"] == result["exact_duplicates"] == result["empty_masks"] == []


def test_duplicate_groups_are_connected_components():
    pairs = [{"a": "a", "b": "b"}, {"a": "c", "b": "b"}, {"a": "e", "b": "d"}]
    groups = groups_of(pairs, list("abcdef"))
    assert groups["a"] == groups["b"] == groups["c"] and groups["d"] == groups["e"]
    assert len(set(groups.values())) == 3


def test_the_command_prints_a_summary_and_writes_json(leaky, tmp_path, capsys):
    main(["audit", str(leaky), "--out", str(tmp_path / "audit.json")])
    printed = capsys.readouterr().out
    assert "3 near duplicates" in printed and "split 1" in printed and "1 by sequence in split" in printed
    result = json.loads((tmp_path / "audit.json").read_text())
    assert result["data"] == "leaky" and result["provenance"]["command"].endswith("audit leaky --near 0.995")


def test_bad_arguments_are_named(leaky, tmp_path, capsys):
    with pytest.raises(ValueError, match="near: expected a correlation between 0 and 1, got 2"):
        audit(leaky, near=2)
    with pytest.raises(SystemExit) as stop:
        main(["audit", str(tmp_path / "nowhere")])
    assert stop.value.code == 2 and "error: data: expected a folder or zip" in capsys.readouterr().err


def test_the_audit_says_what_the_masks_hold_and_stops_at_what_is_no_mask(leaky, capsys):
    for file in (leaky / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) * 255).save(file)
    result = audit(leaky)
    assert result["mask_values"] == {"0": 12, "255": 11} and result["split_items"]["split"] == {"train": 10, "test": 2}
    main(["audit", str(leaky)])
    printed = capsys.readouterr().out
    assert "mask values 0 (in 12 masks), 255 (in 11 masks); 255 is read as 1" in printed
    assert "split: train 10, test 2" in printed
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).save(leaky / "masks/i0.png")
    with pytest.raises(SystemExit):
        main(["audit", str(leaky)])
    assert "masks/i0.png has values 0, 1, 2, 3, ... 255 (256 of them)" in capsys.readouterr().err


def test_images_of_sixteen_bits_are_no_duplicates_of_each_other(leaky):
    for i in (7, 8):
        image = np.asarray(Image.open(leaky / f"images/i{i}.png").convert("L")).astype(np.uint16)
        Image.fromarray(image * 16).save(leaky / f"images/i{i}.png")
    assert audit(leaky)["exact_duplicates"] == [["i0", "i1"]]


def test_strict_ends_with_one_and_names_what_failed(leaky, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["audit", str(leaky), "--strict"])
    assert stop.value.code == "failed: split tears sequence b\nfailed: split parts copies: i0 and i1"
    items = pd.read_csv(leaky / "items.csv").assign(split="train")
    items.to_csv(leaky / "items.csv", index=False)
    command_line(["audit", str(leaky), "--strict"])
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(leaky / "masks/i4.png")
    (leaky / "dataset.json").write_text('{"classes": ["background", "polyp"]}')
    (leaky / "images/i9.png").write_bytes(b"\x89PNG")
    pd.concat([items, items[:1]]).to_csv(leaky / "items.csv", index=False)
    with pytest.raises(SystemExit) as stop:
        command_line(["audit", str(leaky), "--strict"])
    assert "failed: i9: data: item 'i9'" in stop.value.code and "i4: masks/i4.png has values 7" in stop.value.code
    shown = capsys.readouterr().out
    assert "1 masks that are no class indices, 1 items not read" in shown and "names more than once: i0" in shown
    assert "7 (in 1 masks)" in shown and "smallest foregrounds: i" in shown
    with pytest.raises(SystemExit) as stop:
        main(["audit", str(leaky / "nowhere"), "--strict"])
    assert stop.value.code == 2
