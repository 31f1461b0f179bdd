"""The committed splits are what they say, and stay so."""

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts.__main__ import main
from data_scripts.make_splits import make_splits
from data_scripts.registry import REGISTRY, find
from data_scripts.similarity import fingerprint
from data_scripts.splits import EIGHT_ONE_ONE, FOLDER, assign, load_splits, match_fingerprints
from rwkvlib.data import synthetic_polyps

# By the column split: train, validation, test.
COUNTS = {
    "synapse": (18, 0, 12),
    "acdc": (70, 10, 20),
    "busi": (624, 78, 78),
    "cvc_clinicdb": (483, 69, 60),
    "cvc_colondb": (304, 38, 38),
    "kvasir_seg": (800, 100, 100),
    "isic2017": (1800, 200, 150),
    "glas": (68, 17, 80),
}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_set_has_a_split_of_the_documented_size(name):
    table = load_splits(name)
    assert tuple((table["split"] == s).sum() for s in EIGHT_ONE_ONE) == COUNTS[name] and sum(COUNTS[name]) == len(table)
    assert table[table.columns[0]].is_unique and table.notna().all(axis=None)


def test_published_splits_are_kept():
    synapse = load_splits("synapse").set_index("volume")
    test = "0008 0022 0038 0036 0032 0002 0029 0003 0001 0004 0025 0035".split()
    assert set(synapse.index[synapse["split"] == "test"]) == set(test)
    assert (synapse["split_validation"] == "validation").sum() == 3
    assert set(synapse.index[synapse["split_validation"] == "test"]) == set(test)
    acdc = load_splits("acdc").set_index("patient")["split"]
    assert (acdc.loc[1:20] == "test").all() and (acdc.loc[21:30] == "validation").all() and acdc[74] == acdc[76]
    glas = load_splits("glas")
    assert pd.crosstab(glas["official"], glas["split"]).loc[["testA", "testB"], "test"].tolist() == [60, 20]
    isic = load_splits("isic2017")
    assert (isic.loc[isic["official"] == "validation", "split"] == "test").all()
    assert set(isic.loc[isic["official"] == "train", "split"]) == {"train", "validation"}


def test_groups_are_not_torn():
    assert (load_splits("cvc_clinicdb").groupby("sequence")["split"].nunique() == 1).all()
    busi = load_splits("busi")
    assert (busi.groupby("group")["split"].nunique() == 1).all() and busi["group"].nunique() == 716
    label = pd.crosstab(busi["label"], busi["split"], normalize="index")
    assert (abs(label["test"] - 0.1) < 0.01).all()


def test_an_edited_split_is_refused(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "splits")
    file = tmp_path / "splits/glas.csv"
    file.write_text(file.read_text().replace("train_1,train,train", "train_1,train,test"))
    with pytest.raises(ValueError, match=r"splits: glas\.csv is not the committed file"):
        load_splits("glas", tmp_path / "splits")
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1] for line in lines} == {f"{name}.csv" for name in REGISTRY}
    assert all(hashlib.sha256((FOLDER / n).read_bytes()).hexdigest() == d for d, n in map(str.split, lines))


def test_the_committed_splits_are_made_again_byte_for_byte(tmp_path):
    names = [name for name, entry in REGISTRY.items() if not entry.split_needs_images]
    assert len(names) >= 4
    make_splits(names, folder=tmp_path)
    for name in names:
        assert (tmp_path / f"{name}.csv").read_bytes() == (FOLDER / f"{name}.csv").read_bytes(), name
    committed = (FOLDER / "SHA256SUMS").read_text().splitlines(keepends=True)
    expected = [line for line in committed if line.split()[1].removesuffix(".csv") in names]
    assert (tmp_path / "SHA256SUMS").read_text() == "".join(expected)


def test_only_the_named_sets_are_split_anew(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "splits"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(make_splits, "__defaults__", (None, None, folder))
    (folder / "glas.csv").write_text("name,official,split\n")
    (folder / "SHA256SUMS").write_text((FOLDER / "SHA256SUMS").read_text().replace(" acdc.csv", " old.csv"))
    main(["make_splits", "--only", "glas"])
    assert capsys.readouterr().out == "glas {'train': 68, 'validation': 17, 'test': 80}\n"
    assert load_splits("glas", folder).equals(load_splits("glas"))
    lines = (folder / "SHA256SUMS").read_text()
    assert "acdc.csv" not in lines and " old.csv" in lines, "the lines of others stay as they are"
    main(["make_splits", "--only", "acdc", "synapse"])
    assert load_splits("acdc", folder).equals(load_splits("acdc"))
    # What needs images says so, and touches nothing.
    (folder / "glas.csv").unlink()
    for given in ([], ["--only", "glas", "busi"], ["--only", "busi", "--data", str(tmp_path)], ["--only", "mars"]):
        with pytest.raises(SystemExit, match="2"):
            main(["make_splits", *given])
    error = capsys.readouterr().err.splitlines()
    assert "the split of BUSI" in error[0] and "got no folder; give it with --data" in error[1]
    assert "busi_256.zip, busi.zip, busi, found none in" in error[2] and "expected one of ['acdc'" in error[3]
    assert not (folder / "glas.csv").exists()


def test_splits_of_images_are_made_from_a_folder(tmp_path):
    data = tmp_path / "data/kvasir_seg"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    rows, known = [], {}
    for i, split in enumerate(("train", "test", "validation")):
        image, mask = (Image.fromarray(x) for x in synthetic_polyps(i, 64))
        image.save(data / f"images/{i}.png")
        mask.save(data / f"masks/{i}.png")
        rows.append(dict(name=i, split=split))
        known[fingerprint(image)] = split
    pd.DataFrame(rows).to_csv(data / "items.csv", index=False)
    make_splits(["kvasir_seg"], tmp_path / "data", tmp_path / "splits")
    found = load_splits("kvasir_seg", tmp_path / "splits")
    assert found["fingerprint"].is_monotonic_increasing
    assert dict(zip(found["fingerprint"], found["split"], strict=True)) == known


def test_assign_deals_whole_groups_by_share_and_by_seed():
    groups = pd.Series(np.repeat(np.arange(60), np.random.default_rng(0).integers(1, 9, 60)))
    split = assign(groups, EIGHT_ONE_ONE, 0)
    assert (split.groupby(groups).nunique() == 1).all()
    assert abs((split == "test").mean() - 0.1) < 0.02 and abs((split == "validation").mean() - 0.1) < 0.02
    assert split.equals(assign(groups, EIGHT_ONE_ONE, 0)) and not split.equals(assign(groups, EIGHT_ONE_ONE, 1))
    single = assign(pd.Series(range(100)), EIGHT_ONE_ONE, 0)
    assert single.value_counts().to_dict() == {"train": 80, "validation": 10, "test": 10}


def test_fingerprints_find_copies_and_nothing_else(tmp_path):
    images = [Image.fromarray(synthetic_polyps(seed, 96)[0]) for seed in range(12)]
    known = [fingerprint(image) for image in images[:10]]
    copies = {}
    for i in (*range(8), 10, 11):  # 10 and 11 are unknown
        images[i].resize((61, 53), Image.BILINEAR).save(tmp_path / "copy.jpg", quality=50)
        copies[f"copy {i}"] = fingerprint(Image.open(tmp_path / "copy.jpg"))
    assert match_fingerprints(copies, known) == {f"copy {i}": known[i] for i in range(8)}
    assert match_fingerprints({}, known) == {}


def test_one_known_fingerprint_is_given_to_the_nearest_copy_only():
    known = ["00" * 32]
    assert match_fingerprints({"far": "ff" + "00" * 31, "near": "01" + "00" * 31}, known) == {"near": "00" * 32}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_entry_says_what_a_user_needs(name):
    entry = find(name)
    for field in ("title", "modality", "counts", "licence", "citation", "manual", "layout", "splits"):
        assert len(getattr(entry, field)) > 2, field
    assert entry.page.startswith("http") and entry.classes and entry.name == name
    assert all(url.startswith("https://") for url in entry.downloads)


def test_an_unknown_set_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"name: expected one of \['acdc', .*got 'kvasir'"):
        find("kvasir")
