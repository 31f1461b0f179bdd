"""Time to evaluate a Synapse-sized test set without the network: 12 volumes of 130 x 512 x 512, eight organs.

Organs are those of the synthetic abdomen, enlarged; the predictions are the truth with its borders moved by a smooth
field of some pixels, and specks. Measured for each protocol: `score` on the label volumes, and all of `evaluate` at a
network size of 224 with a stand-in for the network that hands out the predictions, so that resizing is included.
Writes results/bench/evaluation.json.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import map_coordinates, zoom

from rwkvlib.data import SegmentationData
from rwkvlib.data.synthetic import synthetic_abdomen
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.metrics import score
from rwkvlib.provenance import provenance, write_result

CLASSES, SIZE, GOAL = 9, 224, 120  # classes with the background; pixels that the network sees; seconds


def volume(seed: int, depth: int, size: int, reach: float = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels (depth, size, size) uint8, and the same with borders moved by up to about `reach` pixels, and specks."""
    _, labels, _ = synthetic_abdomen(seed, size=min(size, 256), depth=min(depth, 64))
    truth = zoom(labels, [n / o for n, o in zip((depth, size, size), labels.shape, strict=True)], order=0)
    rng = np.random.default_rng(seed)
    moved = np.empty_like(truth)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    fields = [zoom(rng.standard_normal((2, 9, 9)), (1, size / 9, size / 9), order=1) for _ in range(5)]
    for i, slice_ in enumerate(truth):
        t = i * 4 / depth
        dy, dx = reach * ((1 - t % 1) * fields[int(t)] + t % 1 * fields[int(t) + 1])
        moved[i] = map_coordinates(slice_, (y + dy, x + dx), order=0)
    for c in range(1, CLASSES):
        z, y0, x0 = (rng.integers(0, n - 3) for n in truth.shape)
        moved[z : z + 2, y0 : y0 + 3, x0 : x0 + 3] = c
    return moved, truth


class StandIn(torch.nn.Module):
    """Logits (B, CLASSES, SIZE, SIZE) of the predictions that it was given, batch after batch."""

    def __init__(self, prediction: np.ndarray):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        places = np.linspace(0, prediction.shape[1] - 1, SIZE).round().astype(int)
        self.small = torch.from_numpy(prediction[:, places][:, :, places]).long()
        self.next = 0

    def forward(self, x):
        labels = self.small[self.next : self.next + len(x)]
        self.next += len(x)
        return torch.zeros(len(x), CLASSES, SIZE, SIZE).scatter_(1, labels[:, None], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=12)
    parser.add_argument("--depth", type=int, default=130)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--out", default=Path(__file__).parent.parent / "results/bench/evaluation.json", type=Path)
    args = parser.parse_args()
    seconds = {f"{what}, {protocol}": [] for what in ("score", "evaluate") for protocol in ("published", "strict")}
    dice = []
    for seed in range(args.volumes):
        prediction, truth = volume(seed, args.depth, args.size)
        items = {"name": [f"{seed}_{i}" for i in range(args.depth)], "volume": str(seed), "slice": range(args.depth)}
        items |= {"spacing_z": 3.0, "spacing_y": 0.8, "spacing_x": 0.8}
        grey = (truth * 28)[..., None].repeat(3, axis=-1)
        data = SegmentationData(grey, truth, pd.DataFrame(items))
        for protocol in ("published", "strict"):
            start = time.perf_counter()
            rows = score(prediction, truth, CLASSES, protocol=protocol, spacing=(3.0, 0.8, 0.8))
            seconds[f"score, {protocol}"].append(time.perf_counter() - start)
            model = StandIn(prediction)
            start = time.perf_counter()
            evaluate(model, data, protocol=protocol, size=SIZE)
            seconds[f"evaluate, {protocol}"].append(time.perf_counter() - start)
        dice.append(float(np.mean([row["dice"] for row in rows])))
        print(seed, f"Dice {dice[-1]:.3f}", {name: round(t[-1], 2) for name, t in seconds.items()}, flush=True)
    result = {
        "volumes": args.volumes,
        "shape": [args.depth, args.size, args.size],
        "classes": CLASSES,
        "network_size": SIZE,
        "mean_dice": float(np.mean(dice)),
        "seconds": {name: {"total": sum(t), "median_of_a_volume": float(np.median(t))} for name, t in seconds.items()},
        "goal_seconds": GOAL,
        "published_test_seconds": 20 * 60,  # as users report it, its network included
        "provenance": provenance(0),
    }
    for name, found in result["seconds"].items():
        print(f"{name}: {found['total']:.1f} s in all, {found['median_of_a_volume']:.2f} s a volume")
    write_result(args.out, result)


if __name__ == "__main__":
    main()
