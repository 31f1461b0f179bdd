"""How far the running statistics of BatchNorm lag behind the weights in a short run. For chapter 12.

    python experiments/batchnorm.py                                    on 128 synthetic images
    python experiments/batchnorm.py --data kvasir=kvasir_seg.zip       on 128 training images of a prepared set

RWKV-UNet-T is trained for 72 steps of 16 images by the recipe `default`. At each validation, every eight steps, the
same weights are scored with three kinds of statistics: the running ones of training; those that the trainer renews
before it validates and saves; and those of all training images, which is what both should be. The trajectory of the
weights is the same with each.
"""

import argparse
import copy
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rwkvlib import create_model
from rwkvlib.data import SegmentationData, load_data
from rwkvlib.data.augment import make_augmentation
from rwkvlib.engine.config import TrainConfig
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.losses import make_loss
from rwkvlib.engine.train import Task, fit, renew_statistics, start
from rwkvlib.provenance import provenance, write_result

RESULTS = Path(__file__).parents[1] / "results/batchnorm"
TRAIN, VALIDATION, STEPS, EVERY = 128, 32, 72, 8


def first(data: SegmentationData, count: int) -> SegmentationData:
    """The first items of a data set."""
    return SegmentationData(data.images[:count], data.masks[:count], data.items[:count])


def dice(model: nn.Module, data: SegmentationData) -> float:
    return float(evaluate(model, data, hd95=False)["dice"].mean())


def timed(spent: list[float], function, *arguments):
    """What the function returns; its seconds of processor time are noted."""
    began = time.process_time()
    found = function(*arguments)
    spent.append(time.process_time() - began)
    return found


def compare(config: TrainConfig, data: SegmentationData, held_out: SegmentationData) -> dict:
    """Trains in a folder that is gone afterwards.

    Returns: for each validation of the run the Dice with running, renewed and all images' statistics; and the share of
        renewing in the processor time of a run that trains, renews and validates.
    """
    augment, loss = make_augmentation(config.augment, config.size), make_loss(config.loss, config.num_classes)
    model = create_model(config.model, num_classes=config.num_classes)
    task = Task(model, data, "mask", loss, augment, None, "dice", dict(model=config.model, overrides={}))
    everything = replace(config, batchnorm_images=len(data))
    rows, instruments, renewing, validating = [], [], [], []

    def validate(model: nn.Module) -> dict[str, float]:
        with_renewed, with_all = copy.deepcopy(model), copy.deepcopy(model)
        images = timed(renewing, renew_statistics, with_renewed, task, config, EVERY)
        renew_statistics(with_all, task, everything, 6 * len(data))
        row = {"step": EVERY * (len(rows) + 1), "images": images, "running": dice(model, held_out)}
        row |= {"renewed": timed(validating, dice, with_renewed, held_out), "all_images": dice(with_all, held_out)}
        rows.append(row)
        print(row, flush=True)
        return {"dice": row["running"]}

    task.validate = lambda model: timed(instruments, validate, model)
    with tempfile.TemporaryDirectory() as out, start(config, Path(out), False, False, None) as accelerator:
        began = time.process_time()
        fit(task, replace(config, batchnorm_images=0), out, accelerator, progress=False)
        training = time.process_time() - began - sum(instruments)
    parts = {"training": training, "renewing": sum(renewing), "validating": sum(validating)}
    return {"validations": rows, "seconds": parts | {"share": parts["renewing"] / sum(parts.values())}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=f"synthetic=synthetic:{TRAIN}", metavar="NAME=PATH", help="a prepared set")
    parser.add_argument("--validation", default="validation", help="the split to score on")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--model", default="rwkv_unet_t")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    name, _, path = args.data.partition("=")
    command = f"python experiments/batchnorm.py {shlex.join(sys.argv[1:])}".strip().replace(path, Path(path).name)
    origin = provenance(args.seed, command)
    common = dict(size=args.size, model=args.model, seed=args.seed, batch_size=16, validate_every=EVERY)
    data = first(load_data(path, "train", size=args.size), TRAIN)
    held_out = first(load_data(path, args.validation, size=args.size), VALIDATION)
    config = TrainConfig(data=name, epochs=STEPS * 16 // len(data), save_every=STEPS, **common)
    found = {"data": name, "images": {"train": len(data), args.validation: len(held_out)}, "recipe": common}
    torch.manual_seed(args.seed)
    found |= compare(config, data, held_out)
    write_result(RESULTS / f"{name}.json", found | {"provenance": origin})
    print(found["seconds"])


if __name__ == "__main__":
    main()
