"""Means with intervals over the units that are independent: patients, sequences, groups of duplicates; else cases.
Comparisons of two models over the same units."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm, rankdata
from scipy.stats import t as student
from scipy.stats import wilcoxon as signed_rank
from scipy.stats.qmc import Sobol

# Pictures of one patient or one sequence resemble one another: to draw them one by one makes intervals too narrow.
NO_UNITS = ("slice", "frame")
# Runs below which a percentile bootstrap over them is clearly too narrow.
FEW = 10


@dataclass(frozen=True)
class Interval:
    """A mean and its interval. NaN where nothing is defined, `low` and `high` also where there is one unit only."""

    mean: float
    sd: float  # over the cases, with n - 1; NaN for a single one
    low: float
    high: float
    cases: int  # that the mean is taken of
    units: int
    undefined: int  # cases without a value, left out
    runs: int = 1  # that the interval generalises from; 1: it is one over units, and what runs vary by is not in it


@dataclass(frozen=True)
class Cells:
    """The cases of a table by run and unit, made ready for `interval_of_cells`."""

    mean: float  # over the cases, so that large units weigh more
    # (runs, units). What each cell adds to the mean, times the number of cells: their mean is `mean`. With equally many
    # cases in each cell it is the cell's mean, else the linearised ratio of sums (Cochran 1977, chapter 6).
    values: np.ndarray


def _sums(table: pd.DataFrame, value: str, unit: str, run: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the defined cases, (runs, units); runs and units without any are left out."""
    for argument, column in (("value", value), ("unit", unit), ("run", run)):
        if column is not None and column not in table:
            raise ValueError(f"{argument}: expected one of {list(table)}, got {column!r}")
    if unit in NO_UNITS:
        raise ValueError(f"unit: expected what is independent (patient, sequence, group or name), got {unit!r}")
    if table[unit].isna().any():
        raise ValueError(f"unit: {table[unit].isna().sum()} of {len(table)} rows have no {unit!r}")
    defined = table[table[value].notna()]
    if not len(defined):
        return np.empty((0, 0)), np.empty((0, 0))
    runs = defined[run] if run else np.zeros(len(defined))
    cells = defined.groupby([runs, defined[unit]], sort=True)[value]
    sums, counts = (x.unstack(fill_value=0).to_numpy(float) for x in (cells.sum(), cells.count()))
    return sums, counts


def make_cells(table: pd.DataFrame, value: str, unit: str, run: str | None = None) -> Cells:
    """The table's cells: the arguments and errors are those of `mean_interval`. Without a defined case the mean is NaN
    and there are no cells."""
    sums, counts = _sums(table, value, unit, run)
    if run and (table.groupby(run)[unit].nunique() != table[unit].nunique()).any():
        raise ValueError(f"run: expected every {run!r} to have scored the same units, by {unit!r}")
    if not sums.size:
        return Cells(float("nan"), sums)
    mean = float(table[value].dropna().to_numpy(float).mean())
    return Cells(mean, mean + (sums - mean * counts) / counts.mean())


def _mean_squares(part: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """What the mean squares of runs, units and rest add to the variance of the mean of cells (runs, units), and their
    degrees of freedom. One run: the units' alone."""
    runs, units = part.shape
    if runs == 1:
        return np.array([0, part.var(ddof=1) / units, 0]), (1, units - 1, 1)
    of_run, of_unit = part.mean(1, keepdims=True), part.mean(0, keepdims=True)
    rest = (part - of_run - of_unit + part.mean()) ** 2
    freedom = (runs - 1) * (units - 1)
    squares = [of_run.var(ddof=1) / runs, of_unit.var(ddof=1) / units, -rest.sum() / freedom / part.size]
    return np.array(squares), (runs - 1, units - 1, freedom)


@lru_cache(maxsize=64)
def _pivots(freedoms: tuple[tuple[int, int, int], ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draws of a standard normal number (N,), and for each triple of degrees of freedom of its chi-squares over them
    (3, N). Scrambled Sobol points: the same ones each time, and evener than random ones."""
    points = Sobol(1 + 3 * len(freedoms), seed=0).random_base2(14).T
    at = iter(points[1:])
    return norm.ppf(points[0]), [np.stack([chi2.ppf(next(at), f) / f for f in triple]) for triple in freedoms]


def interval_of_cells(
    mean: float, *parts: np.ndarray, confidence: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """Low and high of the interval of `mean_interval`, for a mean that is a sum (or difference) of independent parts.

    Args:
        mean: the middle.
        parts: the `values` of `Cells` (runs, units), one for each independent table. For the difference of two scores
            of the same runs and units give one part, the difference of their values.
        confidence, bounds: as of `mean_interval`.

    Returns: low and high; NaN where a part has fewer than two units.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    if not parts or any(part.shape[1] < 2 for part in parts):
        return float("nan"), float("nan")
    if len(parts) == 1 and len(parts[0]) == 1:
        units = parts[0].shape[1]
        half = student.ppf((1 + confidence) / 2, units - 1) * parts[0].std(ddof=1) / units**0.5
    else:
        squares, freedoms = zip(*map(_mean_squares, parts), strict=True)
        z, chi_squares = _pivots(freedoms)
        # What the variance of the mean may be, given the mean squares; none is negative.
        variance = sum(np.maximum(square @ (1 / x), 0) for square, x in zip(squares, chi_squares, strict=True))
        half = np.quantile(np.abs(z) * np.sqrt(variance), confidence)
    return float(max(mean - half, bounds[0])), float(min(mean + half, bounds[1]))


def mean_interval(
    table: pd.DataFrame,
    value: str,
    unit: str,
    *,
    run: str | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """The mean of a column, with an interval that also holds for few runs and few units.

    Runs and units are crossed random effects: a case's score is the mean, plus what its run adds, plus what its unit
    adds, plus what is left. The interval is the generalised confidence interval of the mean (Weerahandi 1993; for
    two-way tables as in Burdick, Borror and Montgomery 2005): with the mean squares A of runs, B of units and C of the
    rest, over n = runs x units cells, the variance of the mean is (A + B - C) / n, and its uncertainty is carried along
    by dividing each mean square by chi-square over its degrees of freedom. Half the width is the quantile of abs(z)
    times the square root. With one run it is Student's interval over the units.

    For 3 runs and 20 to 100 units it holds the true mean in 94 to 98 % of simulated tables for a confidence of 95 %,
    whichever effect dominates (``results/statistics/coverage.json``); where runs dominate, t with Satterthwaite's
    degrees of freedom in 92 % and a percentile bootstrap in 79 %. A few units that are far off, such as one missed
    object in sixteen among 20 images, make every such interval too short (92 %).

    Args:
        table: a row for each case (and run); rows whose value is NaN count as undefined.
        value: column of the numbers.
        unit: column that says what is independent, with all its cases: patient, sequence, group; ``name`` for tables
            whose cases are independent. Units may have several cases, and unequally many.
        run: column that says which training run scored the case; each must have scored the same units. None, or one
            run: the interval is over units only, for this run and no other.
        confidence: between 0 and 1.
        bounds: least and most that the mean can be, such as 0 and 1 for Dice; the interval is cut there.

    Raises:
        ValueError: no such columns, a row without a unit, slices or frames as units, runs with other units, numbers out
            of range.
    """
    cells = make_cells(table, value, unit, run)
    low, high = interval_of_cells(cells.mean, cells.values, confidence=confidence, bounds=bounds)
    values = table[value].dropna()
    return Interval(
        cells.mean,
        float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        low,
        high,
        len(values),
        cells.values.shape[1],
        len(table) - len(values),
        max(len(cells.values), 1),
    )


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
            with the same draw of units, as every run has seen every unit. Not for few runs, of which it warns: drawn
            from three, it is the range of the three at most, and holds the true mean in 75 % for 95 %. The same is
            true of few units. `mean_interval` is made for these.

    Raises:
        ValueError: no such columns, a row without a unit, slices or frames as units, numbers out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    means = bootstrap_means(table, value, unit, run=run, resamples=resamples, seed=seed)
    values = table[value].dropna().to_numpy(float)
    units = table.loc[table[value].notna(), unit].nunique()
    runs = table.loc[table[value].notna(), run].nunique() if run else 1
    if 1 < runs < FEW:
        warnings.warn(f"run: a bootstrap over {runs} runs is too narrow; use mean_interval", stacklevel=2)
    mean = sd = low = high = float("nan")
    if len(values):
        mean = float(values.mean())
    if len(values) > 1:
        sd = float(values.std(ddof=1))
    if units > 1:
        low, high = (float(q) for q in np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Interval(mean, sd, low, high, len(values), units, len(table) - len(values), max(runs, 1))


def bootstrap_means(
    table: pd.DataFrame, value: str, unit: str, *, run: str | None = None, resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """The means of the resamples behind `bootstrap_interval`, whose arguments and errors these are; those of two
    independent tables can be subtracted. Empty where nothing is defined."""
    sums, counts = _sums(table, value, unit, run)
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    if not sums.size:
        return np.empty(0)
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
            then paired with the first of the other, cell by cell, and the mean stays what it is.
        options: of `mean_interval`. A case that either table leaves undefined counts as undefined.

    Raises:
        ValueError: as `mean_interval`, and where the tables do not hold the same cases once each.
    """
    return mean_interval(_differences(a, b, value, on), value, unit, **options)


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
    The test asks about these runs on other units; the interval about other runs as well.

    Args and errors: as of `paired_difference`.
    """
    table = _differences(a, b, value, on)
    difference = mean_interval(table, value, unit, **options)
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


# Between which a score lies.
BOUNDS = dict.fromkeys(("dice", "iou", "sensitivity", "specificity"), (0.0, 1.0)) | {"hd95": (0.0, np.inf)}
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
) -> dict:
    """Means with intervals of a table of `rwkvlib.engine.evaluate.evaluate`.

    Args:
        unit: column that says what is independent, see `mean_interval`; None takes `default_unit`.

    Returns:
        A dict of unit, confidence, ``overall`` and ``classes``: by class (as text) and score an `Interval` as a dict,
        over units and for this one run. Overall, a case counts with the mean of its classes, those that are undefined
        left out.

    Raises: ValueError as `mean_interval` does.
    """
    unit = default_unit(table) if unit is None else unit
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
        return {s: asdict(mean_interval(rows, s, unit, confidence=confidence, bounds=BOUNDS[s])) for s in scores}

    classes = {str(c): intervals(rows) for c, rows in table.groupby("class")}
    return {"unit": unit, "confidence": confidence, "overall": intervals(overall), "classes": classes}
