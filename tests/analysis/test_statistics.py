"""Intervals: their size where it is known, and what is resampled."""

import numpy as np
import pandas as pd
import pytest

from rwkvlib.analysis.statistics import bootstrap_interval, paired_difference


def table(units, per_unit, between, within, seed=0):
    """Cases of units whose means differ."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, between, (units, 1)) + rng.normal(0, within, (units, per_unit))
    names = [f"{u}_{i}" for u in range(units) for i in range(per_unit)]
    return pd.DataFrame({"name": names, "patient": np.repeat(np.arange(units), per_unit), "dice": values.ravel()})


def test_independent_cases_have_the_textbooks_interval():
    cases = table(400, 1, 1.0, 0.0)
    found = bootstrap_interval(cases, "dice", "name")
    half = 1.96 * cases["dice"].std() / 20
    assert found.mean == pytest.approx(cases["dice"].mean()) and found.sd == pytest.approx(cases["dice"].std())
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)
    assert (found.cases, found.units, found.undefined) == (400, 400, 0)


def test_units_are_resampled_whole():
    """30 cases of one patient that are all alike tell no more than one case does."""
    alike = table(20, 30, 1.0, 0.0)
    by_patient, by_case = (bootstrap_interval(alike, "dice", unit) for unit in ("patient", "name"))
    one_each = bootstrap_interval(alike.drop_duplicates("patient"), "dice", "patient")
    assert (by_patient.units, by_patient.cases) == (20, 600)
    assert by_patient.high - by_patient.low == pytest.approx(one_each.high - one_each.low, rel=1e-6)
    assert (by_patient.high - by_patient.low) / (by_case.high - by_case.low) == pytest.approx(30**0.5, rel=0.15)


def test_the_interval_covers_as_often_as_it_says():
    """Of 200 data sets with the true mean 0, between 90 and 98 % of the 95 % intervals hold it; by case far fewer."""
    covered = {"patient": 0, "name": 0}
    for seed in range(200):
        cases = table(40, 5, 1.0, 0.3, seed)
        for unit in covered:
            found = bootstrap_interval(cases, "dice", unit, resamples=400)
            covered[unit] += found.low <= 0 <= found.high
    assert 180 <= covered["patient"] <= 196 and covered["name"] < 160


def test_units_of_several_sizes_keep_the_cases_mean():
    cases = pd.DataFrame({"name": list("abcd"), "patient": [1, 1, 1, 2], "dice": [1.0, 1.0, 1.0, 0.0]})
    found = bootstrap_interval(cases, "dice", "patient")
    assert found.mean == 0.75 and (found.low, found.high) == (0.0, 1.0)
    # Nine cases of one patient, and one each of two: drawn once each, as in the middle of all draws, 9 of 11 are 1.
    cases = pd.DataFrame({"name": list("abcdefghijk"), "patient": [1] * 9 + [2, 3], "dice": [1.0] * 9 + [0.0] * 2})
    middle = bootstrap_interval(cases, "dice", "patient", confidence=0.02)
    assert (middle.low, middle.high) == pytest.approx((9 / 11, 9 / 11))


def test_intervals_are_seeded():
    cases = table(10, 2, 1.0, 1.0)
    assert bootstrap_interval(cases, "dice", "patient") == bootstrap_interval(cases, "dice", "patient")
    other = bootstrap_interval(cases, "dice", "patient", seed=1)
    assert other != bootstrap_interval(cases, "dice", "patient")


def test_undefined_cases_are_counted():
    cases = pd.DataFrame({"name": list("abc"), "dice": [0.5, np.nan, 0.7]})
    found = bootstrap_interval(cases, "dice", "name")
    assert found.mean == pytest.approx(0.6) and (found.cases, found.units, found.undefined) == (2, 2, 1)
    nothing = bootstrap_interval(cases.assign(dice=np.nan), "dice", "name")
    assert np.isnan([nothing.mean, nothing.sd, nothing.low]).all() and nothing.undefined == 3
    single = bootstrap_interval(cases[:1], "dice", "name")
    assert single.mean == 0.5 and np.isnan([single.sd, single.low, single.high]).all()


def test_a_paired_difference_is_narrower_than_the_runs_apart():
    a = table(60, 1, 1.0, 0.0).drop(columns="patient")
    b = a.assign(dice=a["dice"] - 0.1 + np.random.default_rng(1).normal(0, 0.05, 60)).sample(frac=1, random_state=0)
    found = paired_difference(a, b, "dice", "name")
    assert 0 < found.low < 0.1 < found.high < 0.13
    assert found.mean == pytest.approx(a["dice"].mean() - b["dice"].mean())
    alone = bootstrap_interval(a, "dice", "name")
    assert found.high - found.low < 0.1 * (alone.high - alone.low)
    b.loc[b["name"] == "3_0", "dice"] = np.nan
    assert paired_difference(a, b, "dice", "name").undefined == 1


def test_bad_input_is_named():
    cases = table(4, 2, 1.0, 1.0).assign(slice=0, frame=0)
    with pytest.raises(ValueError, match=r"unit: expected one of \['name', .* got 'sequence'"):
        bootstrap_interval(cases, "dice", "sequence")
    for unit in ("slice", "frame"):
        with pytest.raises(ValueError, match=f"unit: expected what is independent .* got '{unit}'"):
            bootstrap_interval(cases, "dice", unit)
    with pytest.raises(ValueError, match=r"value: expected one of .* got 'iou'"):
        bootstrap_interval(cases, "iou", "name")
    with pytest.raises(ValueError, match="unit: 2 of 8 rows have no 'patient'"):
        bootstrap_interval(cases.assign(patient=cases["patient"].where(cases["patient"] > 0)), "dice", "patient")
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1, got 95"):
        bootstrap_interval(cases, "dice", "name", confidence=95)
    with pytest.raises(ValueError, match="resamples: expected at least 1, got 0"):
        bootstrap_interval(cases, "dice", "name", resamples=0)
    with pytest.raises(ValueError, match="b: expected the cases of a, 1 differ"):
        paired_difference(cases, cases[1:], "dice", "name")
    with pytest.raises(ValueError, match="a: expected every case once"):
        paired_difference(pd.concat([cases, cases]), cases, "dice", "name")
