"""Breast-ultrasound-like images: layers, speckle, dark lesions with what they do to the beam behind them."""

import numpy as np

from .noise import blurred_noise, smooth_noise

RANGE = 55.0  # of the display in dB, as scanners compress it


def _speckle(rng: np.random.Generator, size: int, depth: np.ndarray) -> np.ndarray:
    """Echo amplitudes of unit power: Rayleigh, the length of a complex Gaussian that the beam has smeared.

    A pulse's length correlates it along the beam (down the image); its width, which grows with depth, across.
    """
    unit, parts = size / 128, []
    for _ in range(2):
        near, far = (blurred_noise(rng, size, 0.7 * unit, width * unit) for width in (1.0, 2.2))
        parts.append(np.sqrt(1 - depth) * near + np.sqrt(depth) * far)
    return np.hypot(*parts) / np.sqrt(2)


def synthetic_ultrasound(seed: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask; the same seed and size always give the same.

    Skin, fat with bright septa, glandular tissue, striated muscle and the chest wall lie below each other; echoes
    weaken with depth, and multiplicative speckle covers everything. Five images of six hold one lesion, seldom two:
    smooth and lying, with brighter echoes behind it, or irregular and upright, with a shadow. One of six has none and
    an empty mask, as the normal class of BUSI (Al-Dhabyani et al., 2020). Shadows also fall without a lesion, and fat
    is as dark as some lesions, so that darkness alone does not decide.

    Args: ``seed`` >= 0; ``size`` height and width in pixels.
    Returns: image (size, size, 3) uint8, the three channels equal; mask (size, size) uint8 of 0 and 1.
    """
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    lesions = 0 if rng.random() < 1 / 6 else rng.choice([1, 1, 1, 1, 2])

    # Mean echoes in dB below white, layer under layer; each border waves, and reflects where the beam meets it flat.
    borders = np.cumsum(
        [rng.uniform(0.04, 0.07), rng.uniform(0.10, 0.22), rng.uniform(0.28, 0.40), rng.uniform(0.12, 0.2)]
    )
    levels = np.array([-12, -27, -19, -26, -38]) + rng.normal(0, 1.5, 5)
    textures = [
        1.0 * smooth_noise(rng, size, 6),
        2.0 * smooth_noise(rng, size, 10) + 11 * np.exp(-((smooth_noise(rng, size, 6) / 0.10) ** 2)),  # septa
        2.5 * smooth_noise(rng, size, 8) + 2 * smooth_noise(rng, size, 16),
        4.0 * np.sin(2 * np.pi * (rng.uniform(14, 20) * y + 0.6 * smooth_noise(rng, size, 4))),  # fibres
        3.0 * smooth_noise(rng, size, 5),
    ]
    echo = levels[0] + textures[0]
    for border, level, texture in zip(borders, levels[1:], textures[1:], strict=True):
        waves = 0.02 if border < 0.1 else 0.035
        below = y - border - waves * smooth_noise(rng, size, 3) - 0.2 * waves * smooth_noise(rng, size, 9)
        soft = 1 / (1 + np.exp(np.clip(-below * 120, -30, 30)))
        echo = echo * (1 - soft) + (level + texture) * soft
        echo = echo + rng.uniform(3, 9) * np.exp(-((below / 0.008) ** 2)) * (smooth_noise(rng, size, 5) > -0.4)

    # A shadow that belongs to no lesion, behind a septum or where the probe lost contact.
    if rng.random() < 0.5:
        width, top = rng.uniform(0.02, 0.06), rng.uniform(0, 0.4)
        echo = echo - rng.uniform(4, 9) * np.exp(-(((x - rng.uniform(0, 1)) / width) ** 2)) * np.clip(
            (y - top) * 6, 0, 1
        )

    mask = np.zeros((size, size), dtype=bool)
    for _ in range(lesions):
        irregular = rng.random() < 0.4
        cx, radius = rng.uniform(0.2, 0.8), rng.uniform(0.06, 0.17)
        cy = np.clip(rng.uniform(borders[0] + 0.7 * radius, borders[2]), 0.6 * radius + 0.08, 0.85)
        stretch = rng.uniform(0.95, 1.3) if irregular else rng.uniform(0.6, 0.9)  # height to width
        turn = rng.normal(0, 0.2)
        dx, dy = x - cx, y - cy
        a = (dx * np.cos(turn) + dy * np.sin(turn)) * np.sqrt(stretch)
        b = (dy * np.cos(turn) - dx * np.sin(turn)) / np.sqrt(stretch)
        theta = np.arctan2(b, a)
        rough = 0.16 if irregular else 0.05
        outline = 1 + sum(
            rng.normal(0, rough / n**0.6) * np.cos(n * theta + rng.uniform(0, 2 * np.pi))
            for n in range(2, 11 if irregular else 4)
        )
        r = np.hypot(a, b) / (radius * np.clip(outline, 0.45, 1.8))
        mask |= r < 1
        # Behind: the column below the lesion's lower edge, within its width.
        half = radius / np.sqrt(stretch)
        column = np.exp(-(np.abs(dx / (0.85 * half)) ** 4)) * np.clip((dy - 0.5 * radius) / (0.6 * radius), 0, 1)
        behind = -rng.uniform(8, 15) if irregular else rng.uniform(4, 8)
        echo = echo + behind * column * np.exp(-np.clip(dy, 0, None) / 0.5) * (r >= 1)
        if not irregular:  # thin shadows where the beam grazes the smooth sides
            for side in (-1, 1):
                echo = echo - 4 * np.exp(-(((dx - side * half) / 0.012) ** 2)) * (dy > 0)
        inside = rng.uniform(-42, -33) + (3.0 if irregular else 1.5) * smooth_noise(rng, size, 14)
        soft = 1 / (1 + np.exp(np.clip((r - 1) * (14 if irregular else 30), -30, 30)))
        rim = rng.uniform(4, 8) * np.exp(-(((r - 1.25) / 0.2) ** 2)) if irregular else 0  # echogenic halo
        echo = echo * (1 - soft) + inside * soft + rim

    # Attenuation that the gain leaves over, shadow at the probe's ends, the receiver's own noise.
    echo = echo - rng.uniform(3, 10) * y - 8 * np.clip(np.abs(x - 0.5) * 2 - 0.9, 0, None) / 0.1
    amplitude = 10 ** (echo / 20) * _speckle(rng, size, y)
    amplitude = np.hypot(amplitude, 10 ** (-50 / 20) * np.abs(blurred_noise(rng, size, 0.5, 0.5)))
    grey = np.clip(1 + 20 * np.log10(np.maximum(amplitude, 1e-6)) / RANGE + rng.normal(0, 0.03), 0, 1)
    image = (grey * 255).astype(np.uint8)
    return np.repeat(image[..., None], 3, axis=2), mask.astype(np.uint8)
