"""Intervals: their size where it is known, and what is resampled."""

import numpy as np
import pandas as pd
import pytest

from rwkvlib.analysis.statistics import (
    bootstrap_interval,
    compare,
    holm,
    interval_of_cells,
    make_cells,
    mean_interval,
    paired_difference,
)


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


def crossed(of_run, of_unit, rest, units, tables, skewed=False, seed=0):
    """Tables of 3 runs and so many units with the true mean 0, of these shares of the variance of a mean."""
    rng = np.random.default_rng(seed)
    effect = rng.standard_normal((tables, 1, units))
    if skewed:  # as Dice: Beta(6, 1.2), mean 5/6, variance 5/295.2
        effect = (rng.beta(6, 1.2, (tables, 1, units)) - 5 / 6) / (5 / 295.2) ** 0.5
    values = (3 * of_run) ** 0.5 * rng.standard_normal((tables, 3, 1)) + (units * of_unit) ** 0.5 * effect
    return values + (3 * units * rest) ** 0.5 * rng.standard_normal((tables, 3, units))


@pytest.mark.parametrize("units", [20, 100])
@pytest.mark.parametrize("shares", [(0.9, 0.08, 0.02), (0.02, 0.95, 0.03), (1 / 3, 1 / 3, 1 / 3), (0, 0.1, 0.9)])
@pytest.mark.parametrize("skewed", [False, True])
def test_three_runs_cover_as_often_as_they_say(units, shares, skewed):
    """Whatever dominates: runs, units, all the same, the rest. experiments/coverage.py counts more of it."""
    tables = crossed(*shares, units, 500, skewed)
    ends = np.array([interval_of_cells(t.mean(), t) for t in tables])
    covered = ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()
    assert 0.93 <= covered <= 0.995


def test_a_bootstrap_over_three_runs_is_too_narrow_and_says_so():
    """Runs alone differ: the interval is the range of three means, which holds the true one in 1 - 2 / 2**3."""
    covered = {"bootstrap": 0, "mean": 0}
    for values in crossed(1, 0, 1e-6, 20, 200):
        table = pd.DataFrame({"name": np.tile(np.arange(20), 3), "seed": np.repeat(range(3), 20), "x": values.ravel()})
        with pytest.warns(UserWarning, match="a bootstrap over 3 runs is too narrow; use mean_interval"):
            found = bootstrap_interval(table, "x", "name", run="seed", resamples=500)
        covered["bootstrap"] += found.low <= 0 <= found.high
        found = mean_interval(table, "x", "name", run="seed")
        covered["mean"] += found.low <= 0 <= found.high
    assert 0.68 <= covered["bootstrap"] / 200 <= 0.82 and covered["mean"] / 200 >= 0.93


def test_where_one_effect_is_all_the_interval_is_students():
    """The textbook's: of the means of three runs, t with 2; of 30 units, t with 29."""
    rng = np.random.default_rng(0)
    for values, n, width in [
        (np.repeat(rng.normal(size=(3, 1)), 30, 1), 3, 4.3027),
        (np.repeat(rng.normal(size=(1, 30)), 3, 0), 30, 2.0452),
    ]:
        means = values.mean(1 if n == 3 else 0)
        low, high = interval_of_cells(values.mean(), values)
        assert high - low == pytest.approx(2 * width * means.std(ddof=1) / n**0.5, rel=0.01)
        assert (low + high) / 2 == pytest.approx(values.mean())


def test_one_run_has_students_interval_over_units_and_says_so():
    cases = table(12, 1, 1.0, 0.0).assign(seed=0)
    found = mean_interval(cases, "dice", "patient", run="seed")
    half = 2.20099 * cases["dice"].std() / 12**0.5
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), rel=1e-4)
    assert found.runs == 1 and found == mean_interval(cases, "dice", "patient")
    three = pd.concat([cases.assign(seed=s) for s in range(3)])
    assert mean_interval(three, "dice", "patient", run="seed").runs == 3


def test_units_of_several_cases_count_as_one_and_large_ones_weigh_more():
    alike = table(20, 30, 1.0, 0.0)
    one_each = mean_interval(alike.drop_duplicates("patient"), "dice", "patient")
    found = mean_interval(alike, "dice", "patient")
    assert (found.low, found.high) == pytest.approx((one_each.low, one_each.high)) and found.units == 20
    cases = pd.DataFrame({"patient": [1] * 9 + [2, 3], "dice": [1.0] * 9 + [0.0] * 2})
    assert mean_interval(cases, "dice", "patient").mean == 9 / 11
    # The ratio of sums as it is linearised: (sum - mean * cases) of each patient over the mean number of cases.
    linear = np.array([9 - 9 / 11 * 9, -9 / 11, -9 / 11]) / (11 / 3) + 9 / 11
    assert make_cells(cases, "dice", "patient").values[0] == pytest.approx(linear)


def test_the_interval_of_unequal_units_covers_too():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        patients = np.repeat(np.arange(40), rng.integers(1, 9, 40))
        cases = pd.DataFrame({"patient": np.tile(patients, 3), "seed": np.repeat(range(3), len(patients))})
        of_cell = rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 1, 40) + rng.normal(0, 0.5, (3, 40))
        values = of_cell[cases["seed"], cases["patient"]] + rng.normal(0, 0.5, len(cases))
        found = mean_interval(cases.assign(x=values), "x", "patient", run="seed")
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 200 <= 0.995


def test_a_mean_has_bounds_and_its_runs_the_same_units():
    cases = pd.DataFrame({"name": list("abab"), "seed": [0, 0, 1, 1], "dice": [0.9, 1.0, 0.8, 1.0]})
    assert mean_interval(cases, "dice", "name", run="seed", bounds=(0, 1)).high == 1
    assert mean_interval(cases, "dice", "name", run="seed").high > 1
    with pytest.raises(ValueError, match="run: expected every 'seed' to have scored the same units, by 'name'"):
        mean_interval(cases.assign(name=list("abac")), "dice", "name", run="seed")
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1, got 95"):
        mean_interval(cases, "dice", "name", confidence=95)
    nothing = mean_interval(cases.assign(dice=np.nan), "dice", "name", run="seed")
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all() and (nothing.units, nothing.undefined) == (0, 4)
    single = mean_interval(cases[cases["name"] == "a"], "dice", "name", run="seed")
    assert single.mean == pytest.approx(0.85) and np.isnan([single.low, single.high]).all() and single.units == 1


def test_independent_tables_have_the_interval_of_their_difference():
    """Two networks with runs and units of their own: variances add up, as Welch's; two large samples give 1.96."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 1, (1, 2000)), rng.normal(0, 2, (1, 4000))
    low, high = interval_of_cells(a.mean() - b.mean(), a, b)
    assert high - low == pytest.approx(2 * 1.96 * (a.var() / 2000 + b.var() / 4000) ** 0.5, rel=0.01)
    held = 0
    for a, b in zip(crossed(0.5, 0.4, 0.1, 30, 200), crossed(0.1, 0.8, 0.1, 20, 200, seed=1), strict=True):
        low, high = interval_of_cells(a.mean() - b.mean(), a, b)
        held += low <= 0 <= high
    assert held >= 186


def test_a_paired_difference_is_narrower_than_the_runs_apart():
    a = table(60, 1, 1.0, 0.0).drop(columns="patient")
    b = a.assign(dice=a["dice"] - 0.1 + np.random.default_rng(1).normal(0, 0.05, 60)).sample(frac=1, random_state=0)
    found = paired_difference(a, b, "dice", "name")
    assert 0 < found.low < 0.1 < found.high < 0.13
    assert found.mean == pytest.approx(a["dice"].mean() - b["dice"].mean())
    alone = mean_interval(a, "dice", "name")
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


def runs(values, effect_of_run, seed=0):
    """Three runs that score the same 50 cases."""
    rng = np.random.default_rng(seed)
    case = rng.normal(0, 0.1, 50)
    rows = [(f"{i}", r, values + case[i] + effect_of_run[r]) for r in range(3) for i in range(50)]
    return pd.DataFrame(rows, columns=["name", "seed", "dice"])


@pytest.mark.filterwarnings("ignore:run. a bootstrap over")
def test_runs_are_resampled_too():
    same, apart = runs(0.7, [0, 0, 0]), runs(0.7, [-0.2, 0, 0.2])
    one = bootstrap_interval(same[same["seed"] == 0], "dice", "name")
    alike = bootstrap_interval(same, "dice", "name", run="seed")
    # Three runs that are alike tell as much as one, neither more nor less.
    assert (alike.low, alike.high) == pytest.approx((one.low, one.high)) and (alike.cases, alike.units) == (150, 50)
    wide = bootstrap_interval(apart, "dice", "name", run="seed")
    # Means of three draws of -0.2, 0, 0.2: the extreme ones, each once in 27, lie in the tails of 2.5 %.
    assert wide.mean == pytest.approx(alike.mean) and wide.high - wide.low > 0.3 > alike.high - alike.low
    blind = bootstrap_interval(apart, "dice", "name")
    assert blind.high - blind.low < 0.1
    with pytest.raises(ValueError, match=r"run: expected one of .* got 'fold'"):
        bootstrap_interval(same, "dice", "name", run="fold")
    missing = apart.assign(dice=apart["dice"].where(apart["seed"] < 2))
    assert bootstrap_interval(missing, "dice", "name", run="seed").undefined == 50


def test_comparisons_find_what_is_there_and_no_more():
    a, b = runs(0.75, [0, 0.01, -0.01]), runs(0.7, [0, 0, 0], seed=1)
    b["dice"] = a["dice"] - 0.05 - np.random.default_rng(0).normal(0, 0.02, 150)
    keys = dict(on=("name", "class", "seed"), run="seed")
    found = compare(a, b, "dice", "name", **keys)
    assert found.difference.low < 0.05 < found.difference.high and found.p < 1e-6
    assert found.rank_biserial > 0.95 and found.cohen_dz > 2 and (found.units, found.won) == (50, 50)
    turned = compare(b, a, "dice", "name", **keys)
    assert turned.p == found.p and turned.rank_biserial == -found.rank_biserial and turned.won == 0
    # No difference: of 100 tests about five below 0.05.
    rng = np.random.default_rng(1)
    below = [
        compare(a, a.assign(dice=a["dice"] + rng.normal(0, 0.05, 150)), "dice", "name", **keys).p < 0.05
        for _ in range(100)
    ]
    assert 0 < sum(below) <= 12


def test_a_comparison_of_few_units_says_that_it_can_show_nothing():
    a = pd.DataFrame({"name": list("abcdef"), "sequence": [1, 1, 2, 2, 3, 3], "dice": [0.8, 0.9] * 3})
    found = compare(a, a.assign(dice=a["dice"] - [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]), "dice", "sequence")
    assert found.units == 3 and found.p == found.least_p == 0.25 and found.rank_biserial == 1
    same = compare(a, a, "dice", "sequence")
    assert same.p == 1 and same.rank_biserial == 0 and np.isnan(same.cohen_dz)
    single = compare(a[:2], a[:2], "dice", "sequence")
    assert np.isnan(single.p) and single.units == 1


def test_wilcoxon_by_hand():
    """Differences 1, -2, 3, 4, 5: ranks 13 for, 2 against."""
    a = pd.DataFrame({"name": list("abcde"), "dice": [1.0, -2, 3, 4, 5]})
    found = compare(a, a.assign(dice=0.0), "dice", "name")
    # Signs with a smaller rank sum of 2 at most: {}, {1}, {2} of 32, twice.
    assert found.rank_biserial == pytest.approx(11 / 15) and found.p == pytest.approx(6 / 32) and found.won == 4


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_gap = holm([0.01, float("nan"), 0.04])
    assert np.isnan(with_gap[1]) and [with_gap[0], with_gap[2]] == pytest.approx([0.02, 0.04])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="p: expected numbers from 0 to 1"):
        holm([2.0])
