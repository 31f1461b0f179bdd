"""The tables and figures of the chapters on reproduction and ablations, from the files under results/ alone.

``python -m rwkvlib report --out report`` writes all of them. A run is ``results/FOLDER/NAME.json`` with the scores of
its cases beside it in ``NAME.csv``, as `rwkvlib.engine.sweep` writes them; names are SET_MODEL_SEED.

Means are over cases and seeds; intervals are 95 % intervals with seeds and units as crossed random effects
(`rwkvlib.analysis.mean_interval`), of one seed over units alone. Units are videos (sequence), groups of near-duplicates
(group), else images (name). Tests are Wilcoxon's on the units' means, corrected by Holm over the rows of a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..bookkit.results import find_result, read_result
from ..bookkit.style import PALETTE, use_style
from ..files import replacing, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETS = {
    "glas": "GlaS",
    "cvc_image": "CVC-ClinicDB by image",
    "cvc_sequence": "CVC-ClinicDB by video",
    "kvasir": "Kvasir-SEG",
    "busi": "BUSI",
}
OTHER_SETS = {"acdc": "ACDC"}  # of which there are runs, but no place in the tables of the five splits
MODELS = {"t": "RWKV-UNet-T", "unet": "U-Net"}
COLOURS = {"t": PALETTE["orange"], "unet": PALETTE["blue"]}
# The paper's columns; its split of CVC-ClinicDB is not published, and by image in the literature.
PAPER = {"glas": "glas", "cvc_image": "cvc_clinicdb", "kvasir": "kvasir_seg", "busi": "busi"}
UNITS = {"sequence": "videos", "group": "groups", "name": "images", "patient": "patients"}
KEYS = ("name", "class", "seed")
# The published code's rules of scoring were called "paper" in files of before version 0.2.
PUBLISHED = {f"{s}_paper{size}": f"{s}_published{size}" for s in ("dice", "hd95") for size in ("", "_own_size")}


def read_cases(name: str) -> pd.DataFrame:
    """results/NAME.csv. Raises: as `find_result`."""
    return pd.read_csv(find_result(f"{name}.csv"), dtype={"name": str})


def runs(folder: str) -> pd.DataFrame:
    """A row for each finished run of a folder of results: name, set, model, seed, steps, seconds, parameters of origin.

    Raises: FileNotFoundError where there is none.
    """
    where = find_result(f"{folder}/table.json").parent
    known, rows = [*SETS, *OTHER_SETS], []
    for path in sorted(where.glob("*_[0-9].json")):
        result = read_result(f"{folder}/{path.name}")
        stem, seed = path.stem.rsplit("_", 1)
        data = next((s for s in known if stem.startswith(f"{s}_")), None)
        if data is None:
            raise ValueError(f"folder: expected names that begin with one of {known}, got {path.name!r}")
        last, origin = result["log"][-1], result["provenance"]
        rows.append(
            {"name": path.stem, "set": data, "model": stem[len(data) + 1 :], "seed": int(seed)}
            | {"steps": last["step"], "training_seconds": last["seconds"], "seconds": result["seconds"]}
            | {"validation": result["weights"]["dice"], "cpu": origin["hardware"]["cpu"]}
            | {"threads": origin["hardware"]["threads"], "torch": origin["versions"]["torch"]}
            | {"config": result["config_hash"][:8], "data": result["data_hash"]["test"][:8]}
            | {"commit": origin["commit"][:8], "time": origin["time"]}
        )
    return pd.DataFrame(rows)


def cases(folder: str, where: str | None = None) -> pd.DataFrame:
    """The cases of all runs of a folder, with set, model and seed. `where`: the folder of their CSV files, if another
    one."""
    parts = []
    for r in runs(folder).itertuples():
        found = read_cases(f"{where or folder}/{r.name}").rename(columns=PUBLISHED)
        parts.append(found.assign(set=r.set, model=r.model, seed=r.seed))
    return pd.concat(parts, ignore_index=True)


def _unit(table: pd.DataFrame) -> str:
    """What is independent among these cases; a column that another set has is empty here."""
    from ..analysis.statistics import default_unit

    return default_unit(table.dropna(axis=1, how="all"))


def _means(table: pd.DataFrame, by: list[str], score: str) -> pd.DataFrame:
    from ..analysis import mean_interval
    from ..analysis.statistics import BOUNDS

    rows = []
    for keys, part in table.groupby(by, sort=False):
        unit = _unit(part)
        i = mean_interval(part, score, unit, run="seed", bounds=BOUNDS[score])
        seeds = part.groupby("seed")[score].mean()
        rows.append(
            dict(zip(by, keys, strict=True))
            | {"mean": i.mean, "low": i.low, "high": i.high, "seeds": list(seeds), "undefined": i.undefined}
            | {"cases": part["name"].nunique(), "units": i.units, "unit": UNITS[unit], "runs": i.runs}
        )
    return pd.DataFrame(rows)


def _compared(table: pd.DataFrame, by: str, score: str, first: str, second: str) -> pd.DataFrame:
    """`first` against `second`, two of the column model, for each value of `by`."""
    from ..analysis import compare, holm

    rows = []
    for key, part in table.groupby(by, sort=False):
        a, b = (part[part["model"] == m] for m in (first, second))
        unit = _unit(part)
        c = compare(a, b, score, unit, on=KEYS, run="seed")
        d = c.difference
        rows.append(
            {by: key, "difference": d.mean, "low": d.low, "high": d.high, "p": c.p, "rank_biserial": c.rank_biserial}
            | {"cohen_dz": c.cohen_dz, "won": c.won, "units": c.units, "unit": UNITS[unit], "least_p": c.least_p}
            | {"runs": d.runs}
        )
    found = pd.DataFrame(rows)
    found.insert(5, "p_holm", holm(found["p"]))
    return found


def scores(score: str = "dice") -> pd.DataFrame:
    """Means of both networks on each set, with the paper's (in the unit of 1, standard deviation over its splits)."""
    found = _means(cases("reproduction"), ["set", "model"], score)
    found = found.sort_values(["set", "model"], key=lambda c: c.map([*SETS, *MODELS].index), ignore_index=True)
    if score == "dice":
        paper = pd.read_csv(find_result("paper/binary.csv")).set_index("method") / 100
        column = found["set"].map(PAPER)
        rows = found["model"].map(MODELS)
        for name, suffix in (("paper", ""), ("paper_sd", "_sd")):
            pairs = zip(rows, column, strict=True)
            found[name] = [paper.loc[r, c + suffix] if isinstance(c, str) else float("nan") for r, c in pairs]
    return found


def comparisons(score: str = "dice") -> pd.DataFrame:
    """RWKV-UNet-T less U-Net on each set."""
    found = _compared(cases("reproduction"), "set", score, "t", "unet")
    return found.sort_values("set", key=lambda c: c.map(list(SETS).index), ignore_index=True)


def transferred() -> pd.DataFrame:
    """The cases on the other data set of the same task, with way, model and seed."""
    parts = []
    for r in runs("reproduction").itertuples():
        if r.set in ("kvasir", "cvc_sequence"):
            origin = read_result(f"transfer/{r.name}")
            way = f"{origin['trained_on']} to {origin['tested_on']}"
            parts.append(read_cases(f"transfer/{r.name}").assign(way=way, model=r.model, seed=r.seed))
    return pd.concat(parts, ignore_index=True)


def transfer() -> pd.DataFrame:
    """Means on the other data set of the same task, all of its images."""
    return _means(transferred(), ["way", "model"], "dice")


def transfer_comparisons() -> pd.DataFrame:
    """RWKV-UNet-T less U-Net on the other data set."""
    return _compared(transferred(), "way", "dice", "t", "unet")


def protocol() -> pd.DataFrame:
    """What another rule of scoring does to the mean of the same predictions: rows of rule, score, set, model, mean
    difference with interval. See `experiments/reproduction.py` for the rules."""
    from ..analysis import paired_difference

    keys = ["set", "model", *KEYS]
    theirs = cases("reproduction", "protocol").set_index(keys).filter(regex="^(dice|hd95)_").reset_index()
    both = cases("reproduction").merge(theirs, on=keys, validate="one_to_one")
    both["hd95_published_defined"] = both["hd95_published"].where(both["hd95"].notna())
    pairs = [
        ("flips at test time", "dice", "dice_flips", "dice"),
        ("masks at 256 instead of 128 pixels", "dice", "dice_own_size", "dice"),
        ("cubic splines and nearest instead of bilinear", "dice", "dice_published_own_size", "dice_own_size"),
        ("published rules for empty masks", "dice", "dice_published", "dice"),
        ("flips at test time", "hd95", "hd95_flips", "hd95"),
        ("HD95 of both directions together", "hd95", "hd95_published_defined", "hd95"),
    ]
    rows = []
    for (data, model), part in both.groupby(["set", "model"], sort=False):
        unit = _unit(part)
        for rule, score, a, b in pairs:
            d = paired_difference(part.assign(x=part[a]), part.assign(x=part[b]), "x", unit, on=KEYS, run="seed")
            rows.append(dict(rule=rule, score=score, set=data, model=model, difference=d.mean, low=d.low, high=d.high))
        # Not a difference of cases: the misses come in, each with a distance of 0.
        zero = part["hd95_published"].mean() - part["hd95_published_defined"].mean()
        rows.append(dict(rule="misses count as HD95 0", score="hd95", set=data, model=model, difference=zero))
    for (data, model), part in runs("reproduction").groupby(["set", "model"], sort=False):
        gains = []
        for name in part["name"]:
            kept = pd.DataFrame(read_result(f"protocol/{name}")["kept"])
            gains.append(kept["test"].max() - kept.loc[kept["validation"].idxmax(), "test"])
        row = dict(rule="weights chosen on test", score="dice", set=data, model=model)
        # Three runs: their range instead of an interval.
        rows.append(row | dict(difference=sum(gains) / len(gains), low=min(gains), high=max(gains)))
    return pd.DataFrame(rows)


def split_effect() -> pd.DataFrame:
    """CVC-ClinicDB: the mean by image less the mean by video, other test images and all; in the intervals seeds and
    videos of the two tables vary apart."""
    from ..analysis.statistics import interval_of_cells, make_cells

    found = cases("reproduction")
    rows = []
    for model in MODELS:
        parts = [found[(found["set"] == s) & (found["model"] == model)] for s in ("cvc_image", "cvc_sequence")]
        image, video = (make_cells(part, "dice", "sequence", "seed") for part in parts)
        low, high = interval_of_cells(image.mean - video.mean, image.values, video.values, bounds=(-1, 1))
        rows.append(dict(model=model, difference=image.mean - video.mean, low=low, high=high))
    return pd.DataFrame(rows)


def empty_masks() -> pd.DataFrame:
    """ACDC, whose slices lack parts of the heart: what the published rules for empty masks do to the mean Dice of the
    same predictions, by kind of case (slice, volume) and network.

    `absent` is the share of cases, over classes and seeds, whose truth lacks the class; `false_alarm` the share of
    these in which it is predicted (strict 0, published 1; otherwise left out, and 0). `missed` is the share of cases
    that have the class and a prediction without it: 0 by both. In the intervals the units are patients with all their
    cases.
    """
    from ..analysis.statistics import interval_of_cells, make_cells

    rows = []
    for (kind, model), part in cases("empty_masks", "empty_masks/scored").groupby(["kind", "model"], sort=False):
        # Cell by cell, as both rules score the same patients and seeds; each has cases that are defined.
        theirs, ours = (make_cells(part, column, "patient", "seed") for column in ("dice_published", "dice"))
        low, high = interval_of_cells(theirs.mean - ours.mean, theirs.values - ours.values)
        absent, found = part["truth"] == 0, part["predicted"] > 0
        row = dict(kind=kind, model=model, strict=ours.mean, published=theirs.mean)
        row |= dict(difference=theirs.mean - ours.mean, low=low, high=high, absent=absent.mean())
        rows.append(row | dict(false_alarm=found[absent].mean(), missed=(~found[~absent]).mean()))
    return pd.DataFrame(rows)


def empty_masks_comparisons() -> pd.DataFrame:
    """RWKV-UNet-T less U-Net on ACDC, by kind of case and protocol; by the strict one over the cases that are defined
    for both."""
    parts = []
    for rules, column in (("strict", "dice"), ("published", "dice_published")):
        found = cases("empty_masks", "empty_masks/scored").assign(rules=rules)
        parts.append(found.assign(dice=found[column], by=found["kind"] + ", " + rules))
    return _compared(pd.concat(parts), "by", "dice", "t", "unet")


def longer() -> pd.DataFrame:
    """Kvasir-SEG, one seed for an hour: mean Dice with its interval over images, beside the five minutes of the same
    seed and the paper's; steps of each, and the share of the gap between five minutes and the paper that it closes."""
    rows = []
    short, paper = cases("reproduction"), scores().set_index(["set", "model"])["paper"]
    steps = runs("reproduction").set_index("name")["steps"]
    means = _means(cases("longer"), ["model"], "dice").set_index("model")
    for r in runs("longer").itertuples():
        same = short[(short["set"] == r.set) & (short["model"] == r.model) & (short["seed"] == r.seed)]
        row = dict(model=r.model, seed=r.seed, minutes=r.training_seconds / 60, steps=r.steps)
        row |= means.loc[r.model, ["mean", "low", "high"]].to_dict()
        row |= dict(short=same["dice"].mean(), short_steps=steps[r.name], paper=paper[r.set, r.model])
        rows.append(row | dict(closed=(row["mean"] - row["short"]) / (row["paper"] - row["short"])))
    return pd.DataFrame(rows)


def longer_comparison() -> pd.DataFrame:
    """RWKV-UNet-T less U-Net after an hour on Kvasir-SEG: one seed of each, so that what runs vary by is not in the
    interval."""
    return _compared(cases("longer"), "set", "dice", "t", "unet")


def longer_figure() -> Figure:
    """Validation Dice against minutes of training on Kvasir-SEG: the hour, and the five minutes of the same seed."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(5, 3.4))
    for r in runs("longer").itertuples():
        for folder, style, length in (("longer", "-", "an hour"), ("reproduction", ":", "five minutes")):
            log = pd.DataFrame(read_result(f"{folder}/{r.name}")["log"])
            label = f"{MODELS[r.model]}, {length}"
            ax.plot(log["seconds"] / 60, log["dice"], style, color=COLOURS[r.model], label=label)
    ax.set(xlabel="minutes of training, validation included", ylabel="Dice on validation", ylim=(0, 1), xlim=(0, None))
    fig.legend(loc="outside upper center", ncols=2, fontsize=8)
    return fig


def training() -> pd.DataFrame:
    """What the five minutes were: steps, epochs' worth of images, seconds a step, by set and model; least and most of
    the seeds."""
    found = runs("reproduction")
    found["seconds_per_step"] = found["training_seconds"] / found["steps"]
    columns = {f"{c}_{f}": (c, f) for c in ("steps", "seconds_per_step", "training_seconds") for f in ("min", "max")}
    return found.groupby(["set", "model"], sort=False).agg(**columns).reset_index()


def curves() -> pd.DataFrame:
    """Dice on validation against steps and seconds of training, of each run."""
    rows = []
    for r in runs("reproduction").itertuples():
        for x in read_result(f"reproduction/{r.name}")["log"]:
            row = dict(set=r.set, model=r.model, seed=r.seed)
            rows.append(row | {key: x[key] for key in ("step", "seconds", "dice")})
    return pd.DataFrame(rows)


ABLATIONS = {
    "full": "the model as it is",
    "no_ccm": "without CCM",
    "no_attention": "without attention",
    "no_q_shift": "without Q-Shift",
    "decay_0": "decay fixed at 0",
    "published": "the published operator",
    "decoder_7": "decoder 7 × 7",
    "decoder_5": "decoder 5 × 5",
    "decoder_3": "decoder 3 × 3",
    "no_attention_decoder_3": "without attention, decoder 3 × 3",
    "augment_weak": "weak augmentation",
    "augment_strong": "strong augmentation",
}


LEARNT = 0.75  # side accuracy on the test images: between guessing and knowing
FALLEN = 0.2  # between the loss of a network that guesses the side, about 0.32, and of one that knows it, below 0.05


def ablations(folder: str = "ablations") -> pd.DataFrame:
    """Each changed model's mean, what it differs by from the model as it is, and what a step of it takes, in multiples
    of the full model's."""
    found = cases(folder)
    means = _means(found, ["model"], "dice").set_index("model")
    changed = []
    for name in ABLATIONS:
        if name != "full":
            part = found[found["model"].isin([name, "full"])]
            changed.append(part.assign(variant=name, model=part["model"].where(part["model"] == "full", "changed")))
    differences = _compared(pd.concat(changed), "variant", "dice", "changed", "full").set_index("variant")
    of_runs = runs(folder)
    step = (of_runs["training_seconds"] / of_runs["steps"]).groupby(of_runs["model"]).median()
    table = means[["mean", "seeds"]].join(differences).assign(step=step / step["full"])
    return table.loc[list(ABLATIONS)].rename_axis("variant").reset_index()


def ablations_figure(folder: str = "ablations") -> Figure:
    """What each change does to the Dice, with intervals."""
    import matplotlib.pyplot as plt

    found = ablations(folder)
    found = found[found["variant"] != "full"]
    fig, ax = plt.subplots(figsize=(5, 4.8))
    for i, row in enumerate(found.itertuples()):
        ax.plot([row.low, row.high], [-i, -i], color=PALETTE["blue"])
        ax.plot(row.difference, -i, "o", color=PALETTE["blue"])
    ax.axvline(0, color=PALETTE["grey"], linewidth=1)
    ax.set_yticks([-i for i in range(len(found))], [ABLATIONS[v].replace(", ", ",\n") for v in found["variant"]])
    ax.set(xlabel="Dice less that of the model as it is")
    ax.grid(axis="y", visible=False)
    return fig


def by_seed(folder: str = "ablations") -> pd.DataFrame:
    """The mean Dice of each run: a row for each network of `ABLATIONS`, a column for each seed."""
    return cases(folder).groupby(["model", "seed"])["dice"].mean().unstack("seed").loc[list(ABLATIONS)]


def seeds_figure() -> Figure:
    """The mean Dice of each run, the full model's of the same seed as a dotted line."""
    import matplotlib.pyplot as plt

    found = by_seed()
    fig, ax = plt.subplots(figsize=(5, 4.8))
    for seed, colour, marker in zip(found, ("blue", "orange", "green"), "os^", strict=True):
        ax.plot(found[seed], range(len(found)), marker, color=PALETTE[colour], label=f"seed {seed}")
        ax.axvline(found.loc["full", seed], color=PALETTE[colour], linewidth=1, linestyle=":")
    ax.set_yticks(range(len(found)), [name.replace(", ", ",\n") for name in ABLATIONS.values()])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="mean Dice on the test images")
    fig.legend(loc="outside upper center", ncols=3)
    return fig


def interaction(folder: str = "ablations") -> pd.DataFrame:
    """What attention adds to the Dice beside a decoder of 9 × 9 and beside one of 3 × 3 kernels, what the large kernels
    add with and without attention, and the difference of differences, each on the same images and seeds."""
    from ..analysis import mean_interval

    found = cases(folder).set_index([*KEYS, "model"])["dice"].unstack()
    parts = {
        "attention, beside 9 × 9": found["full"] - found["no_attention"],
        "attention, beside 3 × 3": found["decoder_3"] - found["no_attention_decoder_3"],
        "9 × 9, beside attention": found["full"] - found["decoder_3"],
        "9 × 9, without attention": found["no_attention"] - found["no_attention_decoder_3"],
    }
    parts["interaction"] = parts["attention, beside 9 × 9"] - parts["attention, beside 3 × 3"]
    rows = []
    for name, values in parts.items():
        i = mean_interval(values.rename("x").reset_index(), "x", "name", run="seed")
        rows.append({"effect": name, "difference": i.mean, "low": i.low, "high": i.high})
    return pd.DataFrame(rows)


def long_range_runs() -> pd.DataFrame:
    """A row for each run in the files of results/long_range/, which `experiments/long_range.py` wrote, with two more
    columns: learnt, whether the side accuracy is above `LEARNT`, and the step, in tens, at which the training loss
    first fell below `FALLEN` (not a number: never). The runs of distances.json are first.

    Raises:
        FileNotFoundError: there is no distances.json.
        ValueError: the files hold runs of several recipes, or the same run twice.
    """
    first = find_result("long_range/distances.json")
    paths = [first, *sorted(p for p in first.parent.glob("*.json") if p != first)]
    read = [read_result(f"long_range/{p.name}") for p in paths]
    if any(r["recipe"] != read[0]["recipe"] for r in read):
        raise ValueError(f"long_range: expected runs of one recipe, got {[r['recipe'] for r in read]}")
    found = pd.DataFrame([run for r in read for run in r["runs"]])
    keys = ["model", "distance", "seed"]
    if found.duplicated(keys).any():
        raise ValueError(f"long_range: expected each run once, got twice:\n{found.loc[found.duplicated(keys), keys]}")
    step = [next((10 * (i + 1) for i, x in enumerate(losses) if x < FALLEN), None) for losses in found["losses"]]
    return found.assign(learnt=found["side_accuracy"] > LEARNT, step=pd.Series(step, dtype=float))


def long_range() -> pd.DataFrame:
    """Side accuracy by network and distance of the cue: mean, least and most of the seeds; how many of them learnt the
    cue, and the median step at which the training loss fell, where it did."""
    columns = {f: ("side_accuracy", f) for f in ("mean", "min", "max")}
    columns |= {"seeds": ("seed", "count"), "learnt": ("learnt", "sum"), "step": ("step", "median")}
    return long_range_runs().groupby(["model", "distance"], sort=False).agg(**columns).reset_index()


def long_range_comparisons() -> pd.DataFrame:
    """Each network's runs that learnt the cue, of all distances together, against RWKV-UNet-T's: Fisher's exact p, and
    Holm's correction."""
    from scipy.stats import fisher_exact

    from ..analysis import holm

    found = long_range().groupby("model", sort=False)[["learnt", "seeds"]].sum().reset_index()
    counts = {row.model: (row.learnt, row.seeds - row.learnt) for row in found.itertuples()}
    base = MODELS["t"]
    p = [float("nan") if m == base else fisher_exact([counts[m], counts[base]]).pvalue for m in counts]
    return found.rename(columns={"seeds": "runs"}).assign(p=p, p_holm=holm(p))


def long_range_figure() -> Figure:
    """Side accuracy of each run of the first four networks against the distance of the cue, and below it the step at
    which the training loss fell."""
    import matplotlib.pyplot as plt

    found = long_range_runs()
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(5, 5.6), sharex=True)
    colours = ("grey", "orange", "blue", "green")
    for i, (model, colour) in enumerate(zip(found["model"].unique(), colours, strict=False)):
        part = found[found["model"] == model]
        x = part["distance"] + 0.7 * (i - 1.5)  # beside one another
        top.plot(x, part["side_accuracy"], "o", color=PALETTE[colour], alpha=0.7, label=model)
        bottom.plot(x, part["step"], "o", color=PALETTE[colour], alpha=0.7)
    top.axhline(0.5, color=PALETTE["grey"], linewidth=1)
    top.set(ylabel="side accuracy", ylim=(0.4, 1.05))
    bottom.set(ylabel="step at which the loss falls", ylim=(0, None), xlabel="distance of the cue (pixels)")
    bottom.set_xticks(sorted(found["distance"].unique()))
    fig.legend(loc="outside upper center", ncols=1)
    return fig


NETWORKS = {
    "rwkv_unet_t": "RWKV-UNet-T",
    "rwkv_unet_s": "RWKV-UNet-S",
    "rwkv_unet_b": "RWKV-UNet-B",
    "unet": "U-Net",
    "unet_batchnorm": "U-Net, BatchNorm",
    "attention_unet": "Attention U-Net",
    "basic_unet_plus_plus": "U-Net++",
    "swin_unetr": "SwinUNETR",
    "dyn_unet": "DynUNet",
}


def efficiency() -> pd.DataFrame:
    """Counts, latency and memory of one image on a CPU, by network and size; latency also as a multiple of the U-Net's
    at the same size."""
    found = pd.DataFrame(read_result("bench/efficiency_cpu")["rows"])
    unet = found[found["model"] == "unet"].set_index("size")["seconds"]
    return found.assign(times_unet=found["seconds"] / found["size"].map(unet).to_numpy())


def pareto_figure() -> Figure:
    """The paper's Dice on Kvasir-SEG, where it names the network, and ours, against the latency measured here."""
    import matplotlib.pyplot as plt

    cost = efficiency()
    cost = cost[cost["size"] == 256].set_index("model")["seconds"] * 1000
    paper = pd.read_csv(find_result("paper/binary.csv")).set_index("method")["kvasir_seg"] / 100
    printed = {"RWKV-UNet-T": "rwkv_unet_t", "RWKV-UNet-S": "rwkv_unet_s", "RWKV-UNet": "rwkv_unet_b"}
    printed |= {"U-Net": "unet", "Att-UNet": "attention_unet", "UNet++": "basic_unet_plus_plus"}
    fig, ax = plt.subplots(figsize=(5, 4))
    for name, model in printed.items():
        ours = name.startswith("RWKV")
        ax.plot(cost[model], paper[name], "D", color=PALETTE["orange" if ours else "blue"], markerfacecolor="white")
        # The paper's lie close together: names of the family above, of the others below.
        where = dict(xytext=(0, 7 if ours else -7), ha="center", va="bottom" if ours else "top")
        label = NETWORKS[model].replace("RWKV-UNet-", "")
        ax.annotate(label, (cost[model], paper[name]), textcoords="offset points", fontsize=9, **where)
    own = scores()
    for row in own[own["set"] == "kvasir"].itertuples():
        x = cost["rwkv_unet_t" if row.model == "t" else "unet"]
        ax.plot([x, x], [row.low, row.high], color=COLOURS[row.model])
        ax.plot(x, row.mean, "o", color=COLOURS[row.model])
    for marker, colour, label in (
        ("D", "black", "the paper's, pretrained, 256 px"),
        ("o", "black", "ours, from scratch, 5 minutes, 128 px"),
        ("s", "orange", "RWKV-UNet T, S, B"),
        ("s", "blue", "U-Net and its relatives"),
    ):
        face = "white" if marker == "D" else PALETTE[colour]
        ax.plot([], [], marker, color=PALETTE[colour], markerfacecolor=face, label=label)
    ax.set(xlabel="CPU time of one 256 px image (ms)", ylabel="Dice on Kvasir-SEG", xlim=(0, cost.max() * 1.15))
    ax.set_ylim(0, 1)
    fig.legend(loc="outside upper center", ncols=2, fontsize=8)
    return fig


def scores_figure() -> Figure:
    """Ours with intervals and seeds, the paper's beside them."""
    import matplotlib.pyplot as plt

    found = scores()
    fig, ax = plt.subplots(figsize=(5, 5.2))
    for i, data in enumerate(SETS):
        for j, model in enumerate(MODELS):
            row = found[(found["set"] == data) & (found["model"] == model)].iloc[0]
            y = -i - 0.3 * j
            ax.plot([row["low"], row["high"]], [y, y], color=COLOURS[model])
            ax.plot(row["mean"], y, "o", color=COLOURS[model], label=None if i else f"{MODELS[model]}, ours")
            ax.plot(row["seeds"], [y - 0.1] * len(row["seeds"]), "|", color=COLOURS[model], markersize=5)
            label = None if i else f"{MODELS[model]}, paper"
            ax.plot(row["paper"], y, "D", markerfacecolor="white", color=COLOURS[model], label=label)
    ax.set_yticks([-i - 0.15 for i in range(len(SETS))], [t.replace(" by ", "\nby ") for t in SETS.values()])
    ax.set(xlabel="Dice", xlim=(0, 1))
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def differences_figure() -> Figure:
    """RWKV-UNet-T less U-Net, on the sets of training and elsewhere."""
    import matplotlib.pyplot as plt

    own, other = comparisons(), transfer_comparisons()
    labels = [SETS[s].replace(" by ", "\nby ") for s in own["set"]]
    names = {"kvasir_seg": "Kvasir-SEG", "cvc_clinicdb": "CVC-ClinicDB"}
    labels += ["\nto ".join(names[x] for x in way.split(" to ")) for way in other["way"]]
    fig, ax = plt.subplots(figsize=(5, 4.6))
    for i, row in enumerate(pd.concat([own, other]).itertuples()):
        elsewhere = i >= len(own)
        colour = PALETTE["green"] if elsewhere else PALETTE["black"]
        ax.plot([row.low, row.high], [-i, -i], color=colour)
        ax.plot(row.difference, -i, "s" if elsewhere else "o", color=colour)
    ax.axvline(0, color=PALETTE["grey"], linewidth=1)
    ax.set_yticks([-i for i in range(len(labels))], labels)
    ax.set(xlabel="Dice of RWKV-UNet-T less that of the U-Net")
    ax.grid(axis="y", visible=False)
    return fig


def curves_figure() -> Figure:
    """Accuracy against training time: validation Dice of the seeds, one panel for each set."""
    import matplotlib.pyplot as plt

    found = curves()
    fig, axes = plt.subplots(len(SETS), 1, figsize=(5, 8.5), sharex=True)
    for ax, (data, title) in zip(axes, SETS.items(), strict=True):
        for (model, _), run in found[found["set"] == data].groupby(["model", "seed"]):
            ax.plot(run["seconds"], run["dice"], color=COLOURS[model], linewidth=1.3)
        ax.set(title=title, ylim=(0, 1), ylabel="Dice")
    axes[-1].set_xlabel("seconds of training, validation included")
    for model, title in MODELS.items():
        axes[0].plot([], [], color=COLOURS[model], label=title)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def protocol_figure() -> Figure:
    """The effects on Dice, a dot for each set and network."""
    import textwrap

    import matplotlib.pyplot as plt

    found = protocol()
    found = found[found["score"] == "dice"]
    split = split_effect().assign(rule="split by image instead of by video", set="cvc_image")
    found = pd.concat([split, found], ignore_index=True)
    rules = list(dict.fromkeys(found["rule"]))
    fig, ax = plt.subplots(figsize=(5, 4.6))
    for i, rule in enumerate(rules):
        part = found[found["rule"] == rule]
        for j, model in enumerate(MODELS):
            values = part.loc[part["model"] == model, "difference"]
            label = None if i else MODELS[model]
            ax.plot(values, [-i - 0.2 * j] * len(values), "o", color=COLOURS[model], alpha=0.7, label=label)
    ax.axvline(0, color=PALETTE["grey"], linewidth=1)
    ax.set_yticks([-i - 0.1 for i in range(len(rules))], ["\n".join(textwrap.wrap(rule, 22)) for rule in rules])
    ax.set(xlabel="change of the mean Dice")
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


TABLES = {
    "scores": scores,
    "comparisons": comparisons,
    "scores_hd95": lambda: scores("hd95"),
    "transfer": transfer,
    "transfer_comparisons": transfer_comparisons,
    "protocol": protocol,
    "split_effect": split_effect,
    "empty_masks": empty_masks,
    "empty_masks_comparisons": empty_masks_comparisons,
    "longer": longer,
    "longer_comparison": longer_comparison,
    "training": training,
    "runs": lambda: runs("reproduction"),
    "efficiency": efficiency,
    "ablations": ablations,
    "by_seed": lambda: by_seed().reset_index(),
    "interaction": interaction,
    "long_range": long_range,
    "long_range_comparisons": long_range_comparisons,
}
FIGURES = {
    "scores": scores_figure,
    "differences": differences_figure,
    "curves": curves_figure,
    "longer": longer_figure,
    "protocol": protocol_figure,
    "pareto": pareto_figure,
    "ablations": ablations_figure,
    "seeds": seeds_figure,
    "long_range": long_range_figure,
}


def write_report(out: str | Path) -> list[Path]:
    """Writes every table as CSV and every figure as SVG into the folder `out`; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    use_style()
    plt.rcParams["svg.hashsalt"] = "rwkvlib"  # or each drawing has other names inside
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in TABLES.items():
        written.append(out / f"{name}.csv")
        write_file(written[-1], make().to_csv(index=False, float_format="%.5g"))
    for name, make in FIGURES.items():
        written.append(out / f"{name}.svg")
        figure = make()
        with replacing(written[-1]) as file:
            figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
    return written
