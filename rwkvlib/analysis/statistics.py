"""Means with intervals over the units that are independent: patients, sequences, groups of duplicates; else cases."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

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
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of a column and its percentile bootstrap interval (Efron and Tibshirani 1993), resampling whole units.

    Args:
        table: a row for each case; rows whose value is NaN count as undefined.
        value: column of the numbers.
        unit: column that says what is resampled, with all its cases: patient, sequence, group; ``name`` for tables
            whose cases are independent.

    Raises:
        ValueError: no such columns, a row without a unit, slices or frames as units, numbers out of range.
    """
    for argument, column in (("value", value), ("unit", unit)):
        if column not in table:
            raise ValueError(f"{argument}: expected one of {list(table)}, got {column!r}")
    if unit in NO_UNITS:
        raise ValueError(f"unit: expected what is independent (patient, sequence, group or name), got {unit!r}")
    if table[unit].isna().any():
        raise ValueError(f"unit: {table[unit].isna().sum()} of {len(table)} rows have no {unit!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    defined = table[[value, unit]].dropna()
    values = defined[value].to_numpy(float)
    groups = defined.groupby(unit, sort=True)[value]
    sums, counts = groups.sum().to_numpy(float), groups.count().to_numpy(float)
    mean = sd = low = high = float("nan")
    if len(values):
        mean = float(values.mean())
    if len(values) > 1:
        sd = float(values.std(ddof=1))
    if len(sums) > 1:
        # How often each unit is drawn, in each resample: the mean is the cases' own, so large units weigh more.
        drawn = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), resamples)
        means = drawn @ sums / (drawn @ counts)
        low, high = (float(q) for q in np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Interval(mean, sd, low, high, len(values), len(sums), len(table) - len(values))


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, value: str, unit: str, *, on: tuple[str, ...] = ("name", "class"), **options
) -> Interval:
    """The mean of ``a - b`` over the same cases, with its interval: what two runs on one test set differ by.

    Args:
        on: columns that say which rows belong together; those that neither table has are left out.
        options: of `bootstrap_interval`. A case that either table leaves undefined counts as undefined.

    Raises:
        ValueError: as `bootstrap_interval`, and where the tables do not hold the same cases once each.
    """
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
    return bootstrap_interval(
        a.assign(**{value: (left - right.reindex(left.index)).to_numpy()}), value, unit, **options
    )


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
