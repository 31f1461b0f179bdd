"""A first recipe for a data set of one's own."""

import json
from pathlib import Path

import numpy as np

from rwkvlib.data.dataset import class_names, iter_items, mask_values, split_items
from rwkvlib.data.items import as_text
from rwkvlib.models.registry import MODELS

MODEL, LARGEST = "rwkv_unet_t", 256


def recipe(data: str | Path) -> str:
    """The YAML text of a recipe that trains on a data set as it is, with what of it the fields are from.

    Args:
        data: folder or zip in the project's layout, with a column of splits, one of which is ``train``.

    Raises: ValueError for no such column; and as `iter_items`.
    """
    items, values = split_items(data), mask_values(data)
    largest = 1 if set(values) <= {0, 1, 255} else max(values)
    names = class_names(data) or ("background", *(f"class_{i}" for i in range(1, 1 + largest)))
    splits = {c: items[c].dropna().map(as_text).value_counts(sort=False).to_dict() for c in items if c != "name"}
    column = next((c for c in splits if "train" in splits[c]), None)
    if column is None:
        raise ValueError(
            f"data: expected a column split of items.csv with train in it, got {', '.join(items)}; write it with: "
            f"python -m rwkvlib split {data} --shares 7:1:2"
        )
    counts, sides, grey = splits[column], [], True
    for _, read in iter_items(data):
        image = read()[0]
        sides += image.size
        grey = grey and not np.ptp(np.asarray(image), axis=2).any()
    divisor, median = MODELS[MODEL].divisor, float(np.median(sides))
    size = int(min(max(round(median / divisor), 2) * divisor, LARGEST))
    train = counts["train"]
    validation = "validation" if "validation" in counts else None
    binary, shown = len(names) == 2, ", ".join(f"{value} {n}" for value, n in counts.items())
    return f"""\
# {len(items)} images, {"grey" if grey else "in colour"}; read as RGB, grey ones with their value in all three channels.
# python -m rwkvlib train THIS_FILE out=runs/NAME, then evaluate runs/NAME {data}
data: {json.dumps(str(data), ensure_ascii=False)}
split: {json.dumps(column, ensure_ascii=False)}  # a column of items.csv: {shown}
validation: {validation or "null"}  # {"chooses the best weights" if validation else "there are no such images"}
choose: {"best" if validation else "last"}
num_classes: {1 if binary else len(names)}  # {", ".join(names)}{": one output tells" if binary else ""}
loss: {"binary" if binary else "synapse"}  # {"0.5 BCE + Dice" if binary else "0.5 CE + 0.5 Dice"}
model: {MODEL}  # the smallest; rwkv_unet_s and rwkv_unet_b take longer
pretrained: teacher  # an encoder that comes with the library; null: from scratch, and for the other models
# freeze: encoder  # keeps it as it is; or, to change it slowly: encoder_lr: 1.0e-4
size: {size}  # pixels, a multiple of {divisor}, or [height, width]; the images' sides have a median of {median:g}
# in_channels: 1  # of grey images; 2, 4, ... of .npy, .npz and TIFF files with as many channels
# ignore_index: 255  # a value of masks that counts for nothing
# class_weights: [{", ".join(["1"] * max(2, len(names)))}]  # in the loss, the background's first
# resize: letterbox  # keeps the images' shape
# crop: {size}  # trains on patches; with size: null of images at their own size
batch_size: {min(16, max(2, train // 4), train)}
epochs: 200  # at most; the schedule runs with the time where that ends first
budget_seconds: 240  # more is better; 0: no limit
lr: 1.0e-3
schedule: one_cycle
augment: default  # mirror images, quarter turns, brightness and contrast
"""
