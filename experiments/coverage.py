"""How often does a 95 % interval over few runs hold the true mean? Counted on simulated tables of scores.

    python experiments/coverage.py

Each table has 3 runs that score the same 20, 50 or 100 units. A score is the mean, plus an effect of its run (normal),
plus an effect of its unit, plus a rest (normal). The effects' sizes are such that the runs, the units or the rest make
up most of the variance of the mean, or all the same. The effects of the units are normal, skewed like Dice, or as Dice
with one object in sixteen missed; or all is drawn from the stored cases of results/reproduction, whose own mean is then
the true one. Four intervals are counted: `mean_interval`, t with Satterthwaite's degrees of freedom, a percentile
bootstrap that draws runs and units, and Student's over the units alone. Writes results/statistics/coverage.json.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from rwkvlib import report
from rwkvlib.analysis.statistics import interval_of_cells
from rwkvlib.provenance import provenance, write_result

RUNS = 3
UNITS = (20, 50, 100)
# Shares of runs, units and rest in the variance of the mean.
SHARES = {
    "runs": (0.9, 0.08, 0.02),
    "runs and units": (0.5, 0.45, 0.05),
    "units": (0.02, 0.95, 0.03),
    "all the same": (1 / 3, 1 / 3, 1 / 3),
    "rest": (0.0, 0.1, 0.9),
    "rest alone": (0.0, 0.0, 1.0),
}
RESAMPLES = 500  # of the bootstrap


def beta(generator: np.random.Generator, shape: tuple[int, int], missed: float) -> np.ndarray:
    """Units with mean 0 and standard deviation 1: Beta(6, 1.2), of which some are 0 instead."""
    a, b = 6, 1.2
    mean, square = a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))
    values = np.where(generator.random(shape) < missed, 0, generator.beta(a, b, shape))
    mean, square = (1 - missed) * mean, (1 - missed) * square
    return (values - mean) / (square - mean**2) ** 0.5


DISTRIBUTIONS = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "skewed": lambda generator, shape: beta(generator, shape, 0),
    "skewed, one in sixteen missed": lambda generator, shape: beta(generator, shape, 1 / 16),
}


def simulated(generator: np.random.Generator, distribution: str, shares: str, tables: int, units: int) -> np.ndarray:
    """Tables (tables, runs, units) with the true mean 0."""
    of_run, of_unit, rest = SHARES[shares]
    values = (RUNS * of_run) ** 0.5 * generator.standard_normal((tables, RUNS, 1))
    values = values + (units * of_unit) ** 0.5 * DISTRIBUTIONS[distribution](generator, (tables, 1, units))
    return values + (RUNS * units * rest) ** 0.5 * generator.standard_normal((tables, RUNS, units))


def stored(generator: np.random.Generator, cells: np.ndarray, tables: int, units: int) -> np.ndarray:
    """Tables whose units and rest are drawn from stored ones (runs, units), with their mean taken off; the effects of
    runs are normal with the stored standard deviation."""
    of_run, of_unit = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True)
    rest = (cells - of_run - of_unit + cells.mean()).ravel()
    values = of_run.std(ddof=1) * generator.standard_normal((tables, RUNS, 1))
    values = values + generator.choice(of_unit[0] - cells.mean(), (tables, 1, units))
    return values + generator.choice(rest, (tables, RUNS, units))


def populations() -> dict[str, np.ndarray]:
    """Stored cells (runs, units) by name: both networks and their paired difference, on the sets of single images."""
    cases, found = report.cases("reproduction"), {}
    for data in ("glas", "kvasir"):
        part = cases[cases["set"] == data].set_index(["model", "seed", "name"])["dice"]
        by_model = {m: part[m].unstack("name").to_numpy() for m in report.MODELS}
        found |= {f"{report.SETS[data]}, {report.MODELS[m]}": cells for m, cells in by_model.items()}
        found[f"{report.SETS[data]}, difference"] = by_model["t"] - by_model["unet"]
    return found


def satterthwaite(table: np.ndarray) -> tuple[float, float]:
    """The t interval: a mean square of runs A, of units B and of the rest C give the variance A + max(B - C, 0)."""
    runs, units = table.shape
    of_run, of_unit = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    a, b = units * of_run.var(ddof=1), runs * of_unit.var(ddof=1)
    c = ((table - of_run - of_unit + table.mean()) ** 2).sum() / ((runs - 1) * (units - 1))
    variance = a + max(b - c, 0)
    below = a**2 / (runs - 1) + (b > c) * (b**2 / (units - 1) + c**2 / ((runs - 1) * (units - 1)))
    half = student.ppf(0.975, variance**2 / below) * (variance / table.size) ** 0.5
    return table.mean() - half, table.mean() + half


def bootstrap(table: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """As `bootstrap_interval` with runs: each draw of runs meets each draw of units."""
    runs, units = (generator.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in table.shape)
    low, high = np.quantile(((runs @ table) * units).sum(1), [0.025, 0.975])
    return low, high


def count(tables: np.ndarray, generator: np.random.Generator) -> dict[str, float]:
    """By interval the share of the tables in which it holds 0."""
    methods = {
        "mean_interval": lambda table: interval_of_cells(table.mean(), table),
        "satterthwaite": satterthwaite,
        "bootstrap": lambda table: bootstrap(table, generator),
        "units_only": lambda table: interval_of_cells(table.mean(), table.mean(0, keepdims=True)),
    }
    held = {}
    for name, method in methods.items():
        ends = np.array([method(table) for table in tables])
        held[name] = float(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean())
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000, help="simulated for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/statistics/coverage.json")
    args = parser.parse_args()
    origin = provenance(args.seed, f"python experiments/coverage.py --tables {args.tables} --seed {args.seed}")
    generator, rows = np.random.default_rng(args.seed), []
    for units in UNITS:
        for distribution in DISTRIBUTIONS:
            for shares in SHARES:
                tables = simulated(generator, distribution, shares, args.tables, units)
                rows.append(dict(units=units, distribution=distribution, dominates=shares, **count(tables, generator)))
                print(*rows[-1].values(), flush=True)
        for name, cells in populations().items():
            tables = stored(generator, cells, args.tables, units)
            rows.append(dict(units=units, distribution="stored", dominates=name, **count(tables, generator)))
            print(*rows[-1].values(), flush=True)
    result = dict(confidence=0.95, runs=RUNS, tables=args.tables, resamples=RESAMPLES, shares=SHARES, rows=rows)
    write_result(args.out, result | dict(provenance=origin))


if __name__ == "__main__":
    main()
