"""The cases that a model does worst on, on one sheet."""

import heapq
from pathlib import Path

import numpy as np

from ..data.dataset import SegmentationData
from ..files import replacing
from .predict_files import overlay

SIDE, GAP, LINE = 192, 4, 16  # of a picture and around it, and the height of a line of text, in pixels


class Worst:
    """Keeps the `count` cases of the lowest mean Dice among those that it is called with, as `evaluate`'s `each` is.

    A volume is shown by the slice with the most wrong pixels. Cases whose Dice is undefined are passed over.
    """

    def __init__(self, count: int):
        if count < 1:
            raise ValueError(f"worst: expected at least 1, got {count}")
        self.count = count
        self.kept: list[tuple[float, int, str, list[np.ndarray]]] = []
        self.seen = 0

    def __call__(self, case: SegmentationData, labels: np.ndarray, rows: list[dict]) -> None:
        defined = [row["dice"] for row in rows if row["dice"] == row["dice"]]
        if not defined:
            return
        i = int((labels != case.masks).sum((1, 2)).argmax())
        dice = float(np.mean(defined))
        shown = [case.images[i], *(overlay(case.images[i], x[i]) for x in (case.masks, labels))]
        self.seen += 1  # so that equal scores are told apart
        entry = (-dice, -self.seen, str(rows[0]["name"]), shown)
        (heapq.heappush if len(self.kept) < self.count else heapq.heappushpop)(self.kept, entry)

    def write(self, path: str | Path) -> None:
        """Writes the sheet, a PNG file: of each case, the worst first, the picture, the truth, what was predicted, and
        above them its name and Dice."""
        from PIL import Image, ImageDraw

        kept = sorted(self.kept, reverse=True)
        height = LINE + SIDE + GAP
        sheet = Image.new("RGB", (3 * (SIDE + GAP), max(1, len(kept)) * height), "white")
        draw = ImageDraw.Draw(sheet)
        for row, (minus, _, name, pictures) in enumerate(kept):
            draw.text((GAP, row * height + 2), f"{name}: Dice {-minus:.3f}   (picture, truth, prediction)", "black")
            for column, pixels in enumerate(pictures):
                picture = Image.fromarray(pixels)
                picture.thumbnail((SIDE, SIDE))
                sheet.paste(picture, (column * (SIDE + GAP), row * height + LINE))
        with replacing(path) as temporary:
            sheet.save(temporary, format="PNG")
