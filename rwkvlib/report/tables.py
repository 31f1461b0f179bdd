"""The tables of the report, a function each; `TABLES` names the function of each file.

Means are over cases and seeds; intervals are 95 % intervals with seeds and units as crossed random effects
(`rwkvlib.analysis.mean_interval`), of one seed over units alone. Units are videos (sequence), groups of near-duplicates
(group), else images (name). Tests are Wilcoxon's on the units' means, corrected by Holm over the rows of a table.
"""

from __future__ import annotations

import pandas as pd

from ..bookkit.results import find_result, read_result
from .reading import MODELS, OTHER_SETS, SETS, cases, long_range_runs, runs, transferred

# The paper's columns; its split of CVC-ClinicDB is not published, and by image in the literature.
PAPER = {"glas": "glas", "cvc_image": "cvc_clinicdb", "kvasir": "kvasir_seg", "busi": "busi"}
UNITS = {"sequence": "videos", "group": "groups", "name": "images", "patient": "patients"}
KEYS = ("name", "class", "seed")
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

# A network and what it starts from, by the names of experiments/starts.
ARMS = {
    "t_random": "T, random",
    "t_formula": "T, formula",
    "t_teacher": "T, teacher",
    "unet_random": "U-Net, random",
    "unet_formula": "U-Net, formula",
    "lite0": "Lite0-U-Net",
}
STARTS_SETS = SETS | {"isic": OTHER_SETS["isic"]}
# What the plan there asks, each on every set: an arm, and the one that it is compared with.
PRIMARY = {
    "D1": ("t_teacher", "t_random"),
    "D2": ("t_formula", "t_random"),
    "D3": ("t_teacher", "unet_formula"),
    "D4": ("t_teacher", "lite0"),
    "D5": ("unet_formula", "unet_random"),
    "D6": ("t_random", "unet_random"),
}


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


def training() -> pd.DataFrame:
    """What the five minutes were: steps, epochs' worth of images, seconds a step, by set and model; least and most of
    the seeds."""
    found = runs("reproduction")
    found["seconds_per_step"] = found["training_seconds"] / found["steps"]
    columns = {f"{c}_{f}": (c, f) for c in ("steps", "seconds_per_step", "training_seconds") for f in ("min", "max")}
    return found.groupby(["set", "model"], sort=False).agg(**columns).reset_index()


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


def by_seed(folder: str = "ablations") -> pd.DataFrame:
    """The mean Dice of each run: a row for each network of `ABLATIONS`, a column for each seed."""
    return cases(folder).groupby(["model", "seed"])["dice"].mean().unstack("seed").loc[list(ABLATIONS)]


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


def starts() -> pd.DataFrame:
    """Mean Dice on each set of each network and start; steps of a run."""
    found = _means(cases("starts/ten_minutes"), ["set", "model"], "dice")
    steps = runs("starts/ten_minutes").groupby(["set", "model"])["steps"].first()
    found["steps"] = [steps[key] for key in zip(found["set"], found["model"], strict=True)]
    order = {"set": [*STARTS_SETS], "model": [*ARMS]}
    return found.sort_values(["set", "model"], key=lambda c: c.map(order[c.name].index), ignore_index=True)


def starts_comparisons() -> pd.DataFrame:
    """The differences of `PRIMARY` on each set where both arms have the same seeds. The tests belong to one family:
    their corrected p is given when all of it is there, and no sooner."""
    from ..analysis import holm

    table = cases("starts/ten_minutes")
    seeds = table.groupby(["set", "model"])["seed"].unique().map(frozenset)
    parts = []
    for which, arms in PRIMARY.items():
        pair = table[table["model"].isin(arms)]
        ready = [s for s in STARTS_SETS if (s, arms[0]) in seeds and seeds[s, arms[0]] == seeds.get((s, arms[1]))]
        if ready:
            found = _compared(pair[pair["set"].isin(ready)], "set", "dice", *arms)
            parts.append(found.assign(which=which, first=arms[0], second=arms[1]))
    found = pd.concat(parts)
    whole = len(found) == len(PRIMARY) * len(STARTS_SETS)
    found["p_holm"] = holm(found["p"]) if whole else float("nan")
    found["found"] = (found["p_holm"] < 0.05) & ((found["low"] > 0) | (found["high"] < 0))
    order = {"which": [*PRIMARY], "set": [*STARTS_SETS]}
    return found.sort_values(["which", "set"], key=lambda c: c.map(order[c.name].index), ignore_index=True)


def efficiency() -> pd.DataFrame:
    """Counts, latency and memory of one image on a CPU, by network and size; latency also as a multiple of the U-Net's
    at the same size."""
    found = pd.DataFrame(read_result("bench/efficiency_cpu")["rows"])
    unet = found[found["model"] == "unet"].set_index("size")["seconds"]
    return found.assign(times_unet=found["seconds"] / found["size"].map(unet).to_numpy())


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
