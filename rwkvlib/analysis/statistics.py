"""Means with intervals over the units that are independent: patients, sequences, groups of duplicates; else cases.
Comparisons of two models over the same units."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from scipy.stats import wilcoxon as signed_rank

# Pictures of one patient or one sequence resemble one another: to draw them one by one makes intervals too narrow.
NO_UNITS = ("slice", "frame")


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval. NaN where nothing is defined, `low` and `high` also where there is one unit
    only."""

    mean: float
    sd: float  # over the cases, with n - 1; NaN for a single one
    low: float
    high: float
    cases: int  # that the mean is taken of
    units: int
    undefined: int  # cases without a value, left out


def bootstrap_interval(
    table: pd.DataFrame,
    value: str,
    unit: str,
    *,
    run: str | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of a column and its percentile bootstrap interval (Efron and Tibshirani 1993), resampling whole units.

    Args:
        table: a row for each case (and run); rows whose value is NaN count as undefined.
        value: column of the numbers.
        unit: column that says what is resampled, with all its cases: patient, sequence, group; ``name`` for tables
            whose cases are independent.
        run: column that says which training run scored the case. Runs are then resampled as well, each draw of runs
            with the same draw of units, as every run has seen every unit. Of three runs the bootstrap knows only
            roughly how much runs vary: it draws one run three times once in nine.

    Raises:
        ValueError: no such columns, a row without a unit, slices or frames as units, numbers out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    means = bootstrap_means(table, value, unit, run=run, resamples=resamples, seed=seed)
    values = table[value].dropna().to_numpy(float)
    units = table.loc[table[value].notna(), unit].nunique()
    mean = sd = low = high = float("nan")
    if len(values):
        mean = float(values.mean())
    if len(values) > 1:
        sd = float(values.std(ddof=1))
    if units > 1:
        low, high = (float(q) for q in np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Interval(mean, sd, low, high, len(values), units, len(table) - len(values))


def bootstrap_means(
    table: pd.DataFrame, value: str, unit: str, *, run: str | None = None, resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """The means of the resamples behind `bootstrap_interval`, whose arguments and errors these are; those of two
    independent tables can be subtracted. Empty where nothing is defined."""
    for argument, column in (("value", value), ("unit", unit), ("run", run)):
        if column is not None and column not in table:
            raise ValueError(f"{argument}: expected one of {list(table)}, got {column!r}")
    if unit in NO_UNITS:
        raise ValueError(f"unit: expected what is independent (patient, sequence, group or name), got {unit!r}")
    if table[unit].isna().any():
        raise ValueError(f"unit: {table[unit].isna().sum()} of {len(table)} rows have no {unit!r}")
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    defined = table[table[value].notna()]
    if not len(defined):
        return np.empty(0)
    runs = defined[run] if run else np.zeros(len(defined))
    cells = defined.groupby([runs, defined[unit]], sort=True)[value]
    # (runs, units)
    sums, counts = (x.unstack(fill_value=0).to_numpy(float) for x in (cells.sum(), cells.count()))
    # How often each unit is drawn, in each resample: the mean is the cases' own, so large units weigh more.
    generator = np.random.default_rng(seed)
    of_units, of_runs = (generator.multinomial(n, np.full(n, 1 / n), resamples) for n in sums.shape[::-1])
    total, number = (((of_runs @ x) * of_units).sum(1) for x in (sums, counts))
    return total[number > 0] / number[number > 0]


def _differences(a: pd.DataFrame, b: pd.DataFrame, value: str, on: tuple[str, ...]) -> pd.DataFrame:
    """The rows of `a`, with ``a - b`` in the place of `value`."""
    for argument, table in (("a", a), ("b", b)):
        if value not in table:
            raise ValueError(f"value: expected one of {argument}'s columns {list(table)}, got {value!r}")
    keys = [key for key in on if key in a or key in b]
    if not keys:
        raise ValueError(f"on: expected columns of the tables, got {on}")
    indices = []
    for argument, table in (("a", a), ("b", b)):
        if missing := [key for key in keys if key not in table]:
            raise ValueError(f"{argument}: expected columns {keys}, {missing} missing")
        if table.duplicated(keys).any():
            raise ValueError(f"{argument}: expected every case once, by {keys}")
        indices.append(table.set_index(keys)[value])
    if set(indices[0].index) != set(indices[1].index):
        raise ValueError(f"b: expected the cases of a, {len(set(indices[0].index) ^ set(indices[1].index))} differ")
    left, right = indices
    return a.assign(**{value: (left - right.reindex(left.index)).to_numpy()})


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, value: str, unit: str, *, on: tuple[str, ...] = ("name", "class"), **options
) -> Interval:
    """The mean of ``a - b`` over the same cases, with its interval: what two runs on one test set differ by.

    Args:
        on: columns that say which rows belong together; those that neither table has are left out. For several runs of
            each model add the column that numbers them, and give it as `run` too: the first run of the one model is
            then paired with the first of the other, which changes the interval a little and the mean not at all.
        options: of `bootstrap_interval`. A case that either table leaves undefined counts as undefined.

    Raises:
        ValueError: as `bootstrap_interval`, and where the tables do not hold the same cases once each.
    """
    return bootstrap_interval(_differences(a, b, value, on), value, unit, **options)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same units."""

    difference: Interval  # of the first from the second, in the score's unit
    p: float  # of the Wilcoxon signed-rank test (two-sided) on the units' means, not corrected; NaN below two units
    rank_biserial: float  # -1 to 1: ranks of the units that the first wins less those that it loses, over all ranks
    cohen_dz: float  # mean over standard deviation of the units' differences
    units: int
    won: int  # units in which the first has the larger mean
    least_p: float  # the least that so many units can give: above 0.05 the test cannot find anything


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    value: str,
    unit: str,
    *,
    on: tuple[str, ...] = ("name", "class"),
    **options,
) -> Comparison:
    """A paired comparison: difference with interval, Wilcoxon's signed-rank test (1945) on the means of the units over
    their cases (and runs), and effect sizes: the matched-pairs rank-biserial correlation (Kerby 2014) and Cohen's dz.

    Args and errors: as of `paired_difference`.
    """
    table = _differences(a, b, value, on)
    difference = bootstrap_interval(table, value, unit, **options)
    units = table.groupby(unit)[value].mean().dropna().to_numpy()
    p = rank_biserial = dz = float("nan")
    moved = units[units != 0]
    if len(units) > 1:
        p = float(signed_rank(units).pvalue) if len(moved) else 1.0
        ranks = rankdata(np.abs(moved))
        rank_biserial = float((ranks * np.sign(moved)).sum() / ranks.sum()) if len(moved) else 0.0
        spread = units.std(ddof=1)
        dz = float(units.mean() / spread) if spread else float("nan")
    return Comparison(difference, p, rank_biserial, dz, len(units), int((units > 0).sum()), 2.0 ** (1 - len(units)))


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (1979), in their order. NaN stays, uncounted.

    Raises: ValueError for a number outside 0 to 1.
    """
    values = np.asarray(p, float)
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"p: expected numbers from 0 to 1, got {list(p)}")
    order = np.argsort(values)[: np.isfinite(values).sum()]
    corrected = np.full(len(values), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return corrected.tolist()


# What is independent in a data set, by the column that says so; in this order.
UNITS = ("patient", "sequence", "group")


def default_unit(table: pd.DataFrame) -> str:
    """The first of the columns patient, sequence and group that the table has, else ``name``: the case."""
    return next((unit for unit in UNITS if unit in table), "name")


def summarise(
    table: pd.DataFrame,
    unit: str | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict:
    """Means with intervals of a table of `rwkvlib.engine.evaluate.evaluate`.

    Args:
        unit: column that is resampled, see `bootstrap_interval`; None takes `default_unit`.

    Returns:
        A dict of unit, confidence, resamples, seed, ``overall`` and ``classes``: by class (as text) and score an
        `Interval` as a dict. Overall, a case counts with the mean of its classes, those that are undefined left out.

    Raises: ValueError as `bootstrap_interval` does.
    """
    unit = default_unit(table) if unit is None else unit
    options = dict(confidence=confidence, resamples=resamples, seed=seed)
    scores = [s for s in ("dice", "iou", "hd95", "sensitivity", "specificity") if s in table]
    if "hd95_unit" in table and table["hd95_unit"].nunique() > 1:
        raise ValueError(f"table: a mean cannot mix HD95 in {' and '.join(sorted(set(table['hd95_unit'])))}")
    if unit not in table:
        raise ValueError(f"unit: expected one of {list(table)}, got {unit!r}")
    cases = table.groupby("name", sort=False)
    if (cases[unit].nunique(dropna=False) > 1).any():
        raise ValueError(f"unit: expected one {unit!r} for each case")
    overall = cases[scores].mean()
    if unit != "name":
        overall[unit] = cases[unit].first()
    overall = overall.reset_index()

    def intervals(rows: pd.DataFrame) -> dict:
        return {s: asdict(bootstrap_interval(rows, s, unit, **options)) for s in scores}

    classes = {str(c): intervals(rows) for c, rows in table.groupby("class")}
    return {"unit": unit, **options, "overall": intervals(overall), "classes": classes}
