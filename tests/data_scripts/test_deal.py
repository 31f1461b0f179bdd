"""A split deals whole groups, keeps copies together, and labels in proportion."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_scripts.deal import deal, split_data
from rwkvlib.__main__ import main
from rwkvlib.data import synthetic_polyps


@pytest.fixture(scope="module")
def pictures():
    return [synthetic_polyps(i, 32) for i in range(12)]


@pytest.fixture
def mine(tmp_path, pictures):
    """Twelve images, of which 2 is a darker copy of 1; two are of patient 07, label is y for a third."""
    for kind in ("images", "masks"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
    for i in range(12):
        image, mask = pictures[1 if i == 2 else i]
        Image.fromarray(image // 2 if i == 2 else image).save(tmp_path / f"mine/images/i{i}.png")
        Image.fromarray(mask).save(tmp_path / f"mine/masks/i{i}.png")
    rows = [f'i{i},{"07" if i in (3, 9) else ""},{"y" if i % 3 == 0 else "x"},"1,50"' for i in range(12)]
    (tmp_path / "mine/items.csv").write_text("name,patient,label,note\n" + "\n".join(rows) + "\n")
    return tmp_path / "mine"


def test_shares_without_torn_patients_or_parted_copies(mine):
    before = (mine / "items.csv").read_text().splitlines()
    items = split_data(mine, shares=(6, 3, 3), stratify="label").set_index("name")["split"]
    assert items.value_counts().to_dict() == {"train": 6, "validation": 3, "test": 3}
    assert items["i1"] == items["i2"] and items["i3"] == items["i9"]
    after = (mine / "items.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in after] == before, "the other columns stay as typed"
    labels = pd.read_csv(mine / "items.csv").groupby("split")["label"].value_counts().unstack(fill_value=0)
    assert labels["y"].to_dict() == {"train": 2, "validation": 1, "test": 1}


def test_the_same_seed_gives_the_same_split_and_others_another(mine):
    splits = [tuple(split_data(mine, shares=(2, 1, 1), seed=s, overwrite=True)["split"]) for s in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_folds_and_further_groups(mine):
    items = split_data(mine, folds=3)
    assert items["fold"].value_counts().to_dict() == {0: 4, 1: 4, 2: 4}
    items = split_data(mine, folds=2, group="label", column="fold_label")
    assert items.groupby("label")["fold_label"].nunique().max() == 1
    with pytest.raises(ValueError, match="folds: expected at most 2 parts, as many as there are groups that stay"):
        split_data(mine, folds=3, group="label", overwrite=True)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 60), min_size=40, max_size=200),
    rare=st.floats(0.1, 0.5),
    seed=st.integers(0, 9),
)
def test_no_group_is_torn_no_part_empty_and_shares_are_near(groups, rare, seed):
    assume(len(set(groups)) >= 3)
    labels = np.random.default_rng(seed).random(len(groups)) < rare
    part = deal(groups, labels, (7, 1, 2), seed)
    assert set(part) == {0, 1, 2} and pd.DataFrame({"g": groups, "p": part}).groupby("g")["p"].nunique().max() == 1
    largest = pd.Series(groups).value_counts().max()
    for i, share in enumerate((0.7, 0.1, 0.2)):
        assert abs((part == i).sum() - share * len(groups)) <= 2 * largest


def test_no_part_stays_empty_where_there_are_as_many_groups():
    assert sorted(deal(list("abc"), list("xxx"), (8, 1, 1), 0)) == [0, 1, 2]


def test_label_shares_are_within_five_points_of_the_whole():
    rng = np.random.default_rng(0)
    for seed, rare in itertools.product(range(10), (0.05, 0.2, 0.5)):
        groups = rng.integers(0, 120, 400)
        of_group = rng.random(120) < rare
        labels = of_group[groups]  # a patient has one diagnosis
        part = deal(groups, labels, (7, 1, 2), seed)
        for i, share in enumerate((0.7, 0.1, 0.2)):
            assert abs(labels[part == i].mean() - labels.mean()) <= 0.05
            assert abs((part == i).mean() - share) <= 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "shares: expected either shares or folds"),
        ("--shares 7:3", "shares: expected TRAIN:VALIDATION:TEST as in 7:1:2, 0 for none, got 7:3"),
        ("--shares 0:1:2", "shares: expected TRAIN:VALIDATION:TEST as in 7:1:2, 0 for none, got 0:1:2"),
        ("--shares a:b", "shares: expected numbers as in 7:1:2, got 'a:b'"),
        ("--folds 1", "folds: expected at least 2, got 1"),
        ("--folds 11", "folds: expected at most 10 parts, as many as there are groups that stay whole, got 11"),
        ("--folds 2 --group doctor", "group: expected one of name, patient, label, note, got 'doctor'"),
        ("--folds 2 --near 1", "near: expected a correlation between 0 and 1, got 1.0"),
        ("--folds 2 --seed -1", "seed: expected at least 0, got -1"),
        ("--folds 2 --column patient", "column: expected a name for the split, got 'patient'"),
        ("--folds 2 --column note", "column: 'note' is in"),
    ],
)
def test_what_is_wrong_is_named_and_the_table_stays(arguments, message, mine, capsys):
    before = (mine / "items.csv").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["split", str(mine), *arguments.split()])
    assert stop.value.code == 2 and f"error: {message}" in capsys.readouterr().err
    assert (mine / "items.csv").read_bytes() == before


def test_the_command_prints_counts(mine, capsys):
    main(f"split {mine} --shares 6:3:3 --stratify label --column split_b".split())
    shown = capsys.readouterr().out
    assert "validation  2  1    3" in shown and "10 groups stay whole, the largest of 2 items" in shown
    main(f"split {mine} --shares 2:1:1 --column label_b".split())
    capsys.readouterr()
    main(f"split {mine} --shares 2:1:0 --column split_b --overwrite".split())
    assert capsys.readouterr().out.split()[:5] == ["split_b", "train", "8", "validation", "4"]
