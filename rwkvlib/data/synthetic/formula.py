"""Labelled images from a formula: nested contours of few harmonics, filled at random. A start that needs no picture."""

import numpy as np
from PIL import Image, ImageFilter

from .noise import smooth_noise

HARMONICS = (0, 3, 4, 5, 6)  # lobes of the contours of classes 1, 2, ...; 0 is an ellipse


def synthetic_formula(seed: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask; the same seed and size always give the same.

    Four to twelve shapes lie above one another. The contour of a shape is ``r(angle) = R (1 + a cos(k angle + phase)
    + two weak harmonics)`` on a turned ellipse; ``k`` is its class, whatever its size, place and filling. Up to three
    smaller contours of the same form are nested in it. Intensity, texture, light, blur and noise say nothing of the
    class: to tell it one has to follow the contour. After SegRCDB (arXiv 2309.17083), with the random intensities of
    SynthSeg (arXiv 2107.09559).

    Args: ``seed`` >= 0; ``size`` height and width in pixels.
    Returns: image (size, size, 3) uint8, mask (size, size) uint8 of 0 (background) to 5, see `HARMONICS`.
    """
    rng = np.random.default_rng(seed)
    y, x = (np.arange(size, dtype=np.float32) + 0.5)[:, None] / size, (np.arange(size, dtype=np.float32) + 0.5) / size
    textures = [smooth_noise(rng, size, int(2 ** rng.uniform(1, np.log2(size / 2)))) for _ in range(4)]

    def filling(rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        colour = rng.uniform(0.05, 0.95, 3).astype(np.float32)
        return colour + rng.uniform(0, 0.15) * textures[rng.integers(4)][rows, columns, None]

    image, mask = filling(), np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(4, 13)):
        label = int(rng.integers(len(HARMONICS))) + 1
        radius, stretch = 0.3 * 2 ** -rng.uniform(0, 2.5), 2 ** rng.uniform(-0.6, 0.6)
        turn, cy, cx = rng.uniform(0, 2 * np.pi), rng.uniform(), rng.uniform()
        weak = [(k, rng.uniform(0, 2 * np.pi)) for k in (2, 9)]
        height = phase = 0.0
        if harmonic := HARMONICS[label - 1]:
            height, phase = rng.uniform(0.12, 0.3), rng.uniform(0, 2 * np.pi)
        # Pixels outside of the box that the contour fits in are not looked at: most shapes are small.
        cos, sin, most = np.cos(turn), np.sin(turn), radius * (1.04 + height)
        rows = _within(cy, most * np.hypot(sin / stretch, cos * stretch), size)
        columns = _within(cx, most * np.hypot(cos / stretch, sin * stretch), size)
        dy, dx = y[rows] - cy, x[columns] - cx
        across, along = dx * cos + dy * sin, dy * cos - dx * sin
        angle = np.arctan2(along, across)
        reach = 1 + 0.02 * sum(np.cos(k * angle + phase) for k, phase in weak)
        if harmonic:
            reach += height * np.cos(harmonic * angle + phase)
        distance = np.hypot(across * stretch, along / stretch) / (radius * reach)
        for level in (1.0, *sorted(rng.uniform(0.2, 0.9, rng.integers(4)), reverse=True)):
            np.copyto(image[rows, columns], filling(rows, columns), where=(distance < level)[..., None])
        mask[rows, columns][distance < 1] = label

    image = image * (1 + rng.uniform(0, 0.25) * smooth_noise(rng, size, 2)[..., None])
    if rng.uniform() < 0.3:  # as many scanners see
        image = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    picture = Image.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * size))
    noisy = np.asarray(picture) + rng.normal(0, 255 * rng.uniform(0, 0.08), (size, size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def _within(centre: float, reach: float, size: int) -> slice:
    """The pixels whose middles are at most `reach` from `centre`, both in units of `size` pixels, and one more."""
    first, end = int(np.floor((centre - reach) * size - 1)), int(np.ceil((centre + reach) * size + 1))
    return slice(max(0, first), max(0, min(size, end)))
