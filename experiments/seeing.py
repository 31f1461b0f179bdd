"""How far do trained networks look, and what does the trained operator do? For chapter 15.

    python experiments/seeing.py range    what the library's weights do when the operator is changed
    python experiments/seeing.py fields   effective receptive fields of networks trained alike, and far swaps

`range` takes the trained RWKV-UNet-T that comes with the library and, without training, sets its decays, its bonus, its
keys or its output to something else. `fields` trains each network on `synthetic:640` by the recipe of these weights (8
epochs at 128 pixels), and measures on test images what a pixel in the middle depends on, and how much the answer on
the lumps changes when everything farther from them than a margin comes from another image. It writes after every run,
and goes on with what its file lacks.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import rwkvlib.layers.mixing
from rwkvlib import load_checkpoint, load_pretrained
from rwkvlib.analysis import (
    bootstrap_interval,
    count_parameters,
    receptive_contribution,
    receptive_field_radius,
    spatial_mixes,
)
from rwkvlib.data import load_data
from rwkvlib.data.pixels import normalise
from rwkvlib.engine.config import TrainConfig
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.train import train
from rwkvlib.models import RWKVUNet
from rwkvlib.provenance import provenance, write_result

RESULTS = Path(__file__).parents[1] / "results/seeing"
DATA, SIZE, EPOCHS = "synthetic:640", 128, 8
DECAYS = (-1000, -100, -30, -10, -3, 0, 3, 10, 30, 100, 300, 1000, 10_000)
BONUSES = (-10_000, -100, 100, 1000, 10_000)
MARGINS = (0, 4, 8, 16, 32, 48, 64)
MODELS = {
    "U-Net": dict(model="unet"),
    "U-Net, BatchNorm": dict(model="unet", overrides={"norm": "batch"}),
    "RWKV-UNet-T": dict(),
    "RWKV-UNet-T, no attention": dict(overrides={"attention": False}),
}


def changes(model: nn.Module) -> Iterator[tuple[str, float | None]]:
    """Changes the operator in one way after another, names each with its number, and puts it back afterwards."""
    yield "as trained", None
    for name, values in (("decay", DECAYS), ("bonus", BONUSES)):
        parameters = [m.spatial_decay if name == "decay" else m.spatial_first for m in spatial_mixes(model).values()]
        trained = [p.detach().clone() for p in parameters]
        for value in values:
            for p in parameters:
                p.data.fill_(value)
            yield name, value
        for p, old in zip(parameters, trained, strict=True):
            p.data.copy_(old)
    operator = rwkvlib.layers.mixing.bi_wkv
    instead = {
        "plain mean of the values": lambda w, u, k, v, **options: v.mean(1, keepdim=True).expand_as(v),
        "own value only": lambda w, u, k, v, **options: v,
        "the mean of the next image": lambda w, u, k, v, **options: operator(w, u, k, v, **options).roll(1, 0),
    }
    try:
        for name, function in instead.items():
            rwkvlib.layers.mixing.bi_wkv = function
            yield name, None
    finally:
        rwkvlib.layers.mixing.bi_wkv = operator
    blocks = spatial_mixes(model)
    for name, off in {**{f"off: {name}": [m] for name, m in blocks.items()}, "off: all": list(blocks.values())}.items():
        for m in off:
            m.forward = lambda x, shape: torch.zeros_like(x)
        yield name, None
        for m in off:
            del m.forward


def range_of_the_operator() -> dict:
    """Dice of each test image as the operator is changed, and the paired difference from the network as trained."""
    model, _ = load_pretrained("rwkv_unet_t_synthetic")
    data, rows = load_data(DATA, "test", size=SIZE), []
    for name, value in changes(model):
        table = evaluate(model, data, hd95=False)
        if name == "as trained":
            base = table["dice"]
        difference = bootstrap_interval(table.assign(dice=table["dice"] - base), "dice", "name")
        rows.append({"change": name, "value": value, "dice": table["dice"].mean(), "images": len(table)})
        rows[-1] |= {"difference": difference.mean, "low": difference.low, "high": difference.high}
        print(rows[-1], flush=True)
    assert evaluate(model, data, hd95=False)["dice"].equals(base), "the changes were not taken back"
    return {"rows": rows}


def trained(name: str, seed: int, runs: Path) -> nn.Module:
    """The network of MODELS after training. RWKV-UNet-T with seed 0 is the one that comes with the library."""
    if name == "RWKV-UNet-T" and seed == 0:
        return load_pretrained("rwkv_unet_t_synthetic")[0]
    out = runs / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
    train(TrainConfig(data=DATA, size=SIZE, epochs=EPOCHS, seed=seed, **MODELS[name]), out, resume=True, progress=False)
    return load_checkpoint(out / "model.safetensors")[0]


def beyond_by_layer(model: nn.Module, x: Tensor, distance: int = 32) -> dict[str, float]:
    """For each stage and decoder block of an RWKV-UNet, the share of its effective field farther than a distance."""
    shares = {}
    for name in [f"encoder.stage{i}" for i in (1, 2, 3, 4)] + [f"decoder{i}" for i in (1, 2, 3, 4)]:
        if isinstance(model, RWKVUNet):
            field = receptive_contribution(partial(output_of, model, model.get_submodule(name)), x)
            shares[name] = max(0.0, 1 - by_distance(field.double())[distance])  # a sum may round to above 1
    return shares


def output_of(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    """What a module inside of a model gives when the model sees `x`."""
    kept = []
    hook = module.register_forward_hook(lambda module, inputs, output: kept.append(output))
    model(x)
    hook.remove()
    return kept[0]


def by_distance(field: Tensor) -> list[float]:
    """The share of a field (H, W) within each Chebyshev distance 0, 1, ... of its middle."""
    H, W = field.shape
    distance = torch.maximum((torch.arange(H) - H // 2).abs()[:, None], (torch.arange(W) - W // 2).abs())
    sums = field.new_zeros(int(distance.max()) + 1).index_add_(0, distance.flatten(), field.flatten())
    return (sums.cumsum(0) / sums.sum()).tolist()


@torch.inference_mode()
def far_swap(model: nn.Module, x: Tensor, masks: Tensor) -> dict[str, list]:
    """How much the answer on the lumps moves when all that is farther from them than a margin is another image's.

    Args: ``x`` (N, 3, H, W) normalised; ``masks`` (N, H, W).
    Returns: by margin in pixels, the mean over images of the mean absolute change of the probability on the lumps'
        pixels, with its 95 % bootstrap interval: mean, low, high.
    """
    before, found = torch.cat([model(part) for part in x.split(16)])[:, 0].sigmoid(), {}
    for margin in MARGINS:
        near = nn.functional.max_pool2d(masks[:, None].float(), 2 * margin + 1, 1, margin)
        swapped = torch.where(near > 0, x, x.roll(-1, 0))
        after = torch.cat([model(part) for part in swapped.split(16)])[:, 0].sigmoid()
        moved = ((after - before).abs() * masks).sum((1, 2)) / masks.sum((1, 2))
        i = bootstrap_interval(pd.DataFrame({"moved": moved.numpy(), "name": range(len(moved))}), "moved", "name")
        found[str(margin)] = [i.mean, i.low, i.high]
    return found


def measure(model: nn.Module) -> dict:
    """Scores, receptive fields and far swaps of a trained network."""
    model.eval()
    data = load_data(DATA, "test", size=SIZE)
    items = [data[i] for i in range(len(data))]
    x, masks = normalise(torch.stack([item["image"] for item in items])), torch.stack([i["mask"][0] for i in items])
    field = torch.stack([receptive_contribution(model, part) for part in x[:64].split(8)]).double().mean(0)
    radius = receptive_field_radius(model, 256)
    pooled = nn.functional.avg_pool2d(field[None], SIZE // 32)[0]
    decays = {name: m.spatial_decay.abs() for name, m in spatial_mixes(model).items()}
    return {
        "parameters": count_parameters(model),
        "dice": evaluate(model, data, hd95=False)["dice"].mean(),
        "receptive_field_radius": radius if np.isfinite(radius) else None,  # None: the whole image
        "share_within": [round(share, 5) for share in by_distance(field)],
        "field_32": [[float(f"{v:.3g}") for v in row] for row in (pooled / pooled.max()).tolist()],
        "beyond_32_by_layer": beyond_by_layer(model, x[:16]),
        "far_swap": far_swap(model, x, masks),
        "decays": {name: {"mean": d.mean().item(), "largest": d.max().item()} for name, d in decays.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("range", "fields"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--runs", type=Path, default=Path("runs/seeing"), help="folder for the training runs")
    args = parser.parse_args()
    command = f"python experiments/seeing.py {shlex.join(sys.argv[1:])}"
    path = RESULTS / f"{args.what}.json"
    # Taken now: the code that runs is the one that was there at the start.
    origin = provenance(args.seeds[0], command)
    if args.what == "range":
        write_result(path, range_of_the_operator() | {"provenance": origin})
        return
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    done = {(run["model"], run["seed"]) for run in runs}
    for seed in args.seeds:
        for name in args.models:
            if (name, seed) not in done:
                found = measure(trained(name, seed, args.runs))
                runs.append(run := {"model": name, "seed": seed, "commit": origin["commit"], **found})
                recipe = {"data": DATA, "size": SIZE, "epochs": EPOCHS}
                write_result(path, {"recipe": recipe, "runs": runs, "provenance": origin})
                print(f"{name}, seed {seed}: Dice {run['dice']:.3f}", flush=True)


if __name__ == "__main__":
    main()
