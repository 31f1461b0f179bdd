"""The figures of the report, a function each; `FIGURES` names the function of each file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..bookkit.results import find_result, read_result
from ..bookkit.style import PALETTE
from .reading import MODELS, SETS, curves, long_range_runs, runs
from .tables import (
    ABLATIONS,
    ARMS,
    NETWORKS,
    PRIMARY,
    STARTS_SETS,
    ablations,
    by_seed,
    comparisons,
    efficiency,
    protocol,
    scores,
    split_effect,
    starts_comparisons,
    transfer_comparisons,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"t": PALETTE["orange"], "unet": PALETTE["blue"]}


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


def starts_figure(which: str = "D1") -> Figure:
    """One of the differences of `PRIMARY` on each set that has it, with its interval."""
    import matplotlib.pyplot as plt

    found = starts_comparisons()
    found = found[found["which"] == which]
    first, second = (ARMS[arm] for arm in PRIMARY[which])
    fig, ax = plt.subplots(figsize=(5, 0.9 + 0.38 * len(found)))
    for i, row in enumerate(found.itertuples()):
        ax.plot([row.low, row.high], [-i, -i], color=PALETTE["blue"])
        ax.plot(row.difference, -i, "o", color=PALETTE["blue"])
    ax.axvline(0, color=PALETTE["grey"], linewidth=1)
    ax.set_yticks([-i for i in range(len(found))], [STARTS_SETS[s] for s in found["set"]])
    ax.set(xlabel=f"Dice of {first}, less that of {second}")
    ax.grid(axis="y", visible=False)
    return fig


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
