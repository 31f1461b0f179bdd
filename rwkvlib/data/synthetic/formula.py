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
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    textures = [smooth_noise(rng, size, int(2 ** rng.uniform(1, np.log2(size / 2)))) for _ in range(4)]

    def filling() -> np.ndarray:
        colour = rng.uniform(0.05, 0.95, 3).astype(np.float32)
        return colour + rng.uniform(0, 0.15) * textures[rng.integers(4)][..., None]

    image, mask = filling(), np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(4, 13)):
        label = int(rng.integers(len(HARMONICS))) + 1
        radius, stretch = 0.3 * 2 ** -rng.uniform(0, 2.5), 2 ** rng.uniform(-0.6, 0.6)
        turn = rng.uniform(0, 2 * np.pi)
        dy, dx = y - rng.uniform(), x - rng.uniform()
        across, along = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        angle = np.arctan2(along, across)
        reach = 1 + 0.02 * sum(np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 9))
        if harmonic := HARMONICS[label - 1]:
            reach += rng.uniform(0.12, 0.3) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
        distance = np.hypot(across * stretch, along / stretch) / (radius * reach)
        for level in (1.0, *sorted(rng.uniform(0.2, 0.9, rng.integers(4)), reverse=True)):
            image = np.where((distance < level)[..., None], filling(), image)
        mask[distance < 1] = label

    image = image * (1 + rng.uniform(0, 0.25) * smooth_noise(rng, size, 2)[..., None])
    if rng.uniform() < 0.3:  # as many scanners see
        image = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    picture = Image.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * size))
    noisy = np.asarray(picture) + rng.normal(0, 255 * rng.uniform(0, 0.08), (size, size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), mask
