"""Scores of a predicted label map, 2-D or 3-D, class by class, by one of two protocols.

``published``: the published code's, after TransUNet (arXiv 2102.04306) and medpy. A class that is predicted but not
there scores Dice 1 and HD95 0; one that is not predicted scores 0 and 0, be it there or not. HD95 is in pixels,
whatever the spacing: the 95th percentile of the distances of both directions put together.

(An older name of it is ``paper``, which is still read. Of the *operator* the variant "paper" is the equation, and
"published" what the published kernel computes, the same sense as here.)

``strict``: a score that is not defined is NaN. Dice and IoU: neither there nor predicted. HD95: one of the two is
empty. HD95 is MONAI's: the larger of the two directions' 95th percentiles, in the units of `spacing`.

A volume of one slice has the HD95 of that slice as an image: as a volume, every pixel of it would be surface.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

PROTOCOLS = ("published", "strict")
OLD_NAMES = {"paper": "published"}  # in stored results and recipes
SCORES = ("dice", "iou", "hd95", "sensitivity", "specificity")


def check_protocol(protocol: str) -> str:
    """The protocol's name, of an old one the present one. Raises ValueError for an unknown name."""
    name = OLD_NAMES.get(protocol, protocol)
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    return name


def published_columns(table: pd.DataFrame) -> pd.DataFrame:
    """A stored table with the present names of its columns: dice_paper is dice_published."""
    return table.rename(columns=lambda name: re.sub(r"_paper(?=_|$)", "_published", name))


def surface(mask: np.ndarray) -> np.ndarray:
    """The pixels of a boolean mask with a neighbour (4 in 2-D, 6 in 3-D) outside it or outside the image: the mask
    without its erosion, as in medpy and MONAI."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        a, b = (np.moveaxis(x, axis, 0) for x in (inner, mask))
        a[1:] &= b[:-1]
        a[:-1] &= b[1:]
        a[0] = a[-1] = False
    return mask & ~inner


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of every surface pixel of the one mask to the nearest surface pixel of the other.

    Args:
        prediction, truth: boolean, of one shape, neither empty.
        spacing: of the pixels along each axis; None: 1.

    Returns:
        From the prediction's surface to the truth's, and from the truth's to the prediction's, in no order.
    """
    p, t = surface(prediction), surface(truth)
    distances = []
    # A tree instead of a distance transform: its cost grows with the surface, not with the volume. The pixels that the
    # surfaces share, most of a good prediction's, need no search.
    for source, target in ((p, t), (t, p)):
        points, others = (np.argwhere(x).astype(float) for x in (source & ~target, target))
        if spacing is not None:
            points, others = points * spacing, others * spacing
        # A tree for a single use: quick to build rather than balanced.
        tree = cKDTree(others, compact_nodes=False, balanced_tree=False)
        apart = tree.query(points)[0] if len(points) else np.empty(0)
        distances.append(np.concatenate([apart, np.zeros(np.count_nonzero(source & target))]))
    return distances[0], distances[1]


def hd95_together(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """medpy's HD95: the 95th percentile of both directions' distances put together. Masks as in `surface_distances`."""
    return float(np.percentile(np.concatenate(surface_distances(prediction, truth, spacing)), 95))


def hd95_larger(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """MONAI's HD95: the larger of both directions' 95th percentiles. Masks as in `surface_distances`."""
    return max(float(np.percentile(d, 95)) for d in surface_distances(prediction, truth, spacing))


def _confusion(prediction: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts of pixels by truth and prediction; slice by slice, for the sake of memory."""
    counts = np.zeros(classes * classes, np.int64)
    for p, t in zip(prediction, truth, strict=True):
        counts += np.bincount((t.astype(np.int64) * classes + p).ravel(), minlength=classes * classes)
    return counts.reshape(classes, classes)


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")


def score(
    prediction: np.ndarray,
    truth: np.ndarray,
    num_classes: int,
    *,
    protocol: str = "strict",
    spacing: Sequence[float] | None = None,
    hd95: bool = True,
    ignore_index: int | None = None,
) -> list[dict]:
    """The scores of one case (an image or a volume).

    Args:
        prediction, truth: class indices, (H, W) or (D, H, W), of an integer dtype; or bool, for a binary mask.
        num_classes: the background included.
        protocol: "published" or "strict", see above.
        spacing: of the pixels along each axis, in mm; None: 1. The protocol "published" takes no notice of it.
        hd95: False leaves out what takes the time.
        ignore_index: of the truth, whose pixels count for nothing; for HD95 both masks are empty there.

    Returns:
        For every class but the background a dict of class, dice, iou, hd95, sensitivity, specificity, and the sizes
        truth and predicted in pixels. Sensitivity is NaN without the class, specificity where there is nothing else.

    Raises:
        ValueError, TypeError: other shapes or dtypes, indices that are no class, a spacing that is not positive.
    """
    protocol = check_protocol(protocol)
    prediction, truth = (x.astype(np.uint8) if x.dtype == bool else x for x in map(np.asarray, (prediction, truth)))
    ignored = 0
    if ignore_index is not None and prediction.shape == truth.shape:
        out = truth == ignore_index
        prediction, truth, ignored = np.where(out, 0, prediction), np.where(out, 0, truth), int(out.sum())
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if labels.dtype.kind not in "ui":
            raise TypeError(f"{name}: expected integers or bool, got {labels.dtype}")
        if labels.ndim not in (2, 3) or 0 in labels.shape:
            raise ValueError(f"{name}: expected shape (H, W) or (D, H, W), got {labels.shape}")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"{name}: expected classes 0 to {num_classes - 1}, got {labels.min()} to {labels.max()}"
                + "; of a mask of 0 and 255: mask > 0" * (num_classes == 2 and set(np.unique(labels)) == {0, 255})
            )
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction: expected the truth's shape {truth.shape}, got {prediction.shape}")
    if spacing is not None and (len(spacing) != truth.ndim or not all(0 < s < np.inf for s in spacing)):
        raise ValueError(f"spacing: expected {truth.ndim} positive numbers, got {spacing}")
    if truth.ndim == 3 and 1 in truth.shape:  # a single slice
        axis = truth.shape.index(1)
        prediction, truth = prediction.squeeze(axis), truth.squeeze(axis)
        spacing = None if spacing is None else [s for i, s in enumerate(spacing) if i != axis]
    counts = _confusion(prediction, truth, num_classes)
    boxes = [find_objects(labels, max_label=num_classes - 1) for labels in (prediction, truth)]
    rows = []
    for c in range(1, num_classes):
        size, predicted, both = (int(n) for n in (counts[c].sum(), counts[:, c].sum(), counts[c, c]))
        rest = truth.size - ignored - size
        row = {
            "class": c,
            "dice": _ratio(2 * both, size + predicted),
            "iou": _ratio(both, size + predicted - both),
            "hd95": float("nan"),
            "sensitivity": _ratio(both, size),
            "specificity": _ratio(rest - predicted + both, rest),
            "truth": size,
            "predicted": predicted,
        }
        if size and predicted and hd95:
            # Nothing outside the box of both matters: there both are empty, and so is what lies outside the image.
            a, b = boxes[0][c - 1], boxes[1][c - 1]
            box = tuple(slice(min(i.start, j.start), max(i.stop, j.stop)) for i, j in zip(a, b, strict=True))
            p, t = prediction[box] == c, truth[box] == c
            row["hd95"] = hd95_together(p, t) if protocol == "published" else hd95_larger(p, t, spacing)
        elif protocol == "published" and not (size and predicted):
            row["dice"] = row["iou"] = 1.0 if predicted else 0.0
            row["hd95"] = 0.0 if hd95 else row["hd95"]
        rows.append(row)
    return rows
