"""Polyp-like endoscopy images, made by a seeded generator: the book needs no download."""

import numpy as np

from .noise import smooth_noise


def synthetic_polyps(seed: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask; the same seed and size always give the same.

    A pink wall with folds, vessels, a round light and a dark lumen; on it one or two lumps with their own tint,
    shading and rim, and wet highlights both on and off them, so that neither brightness nor colour alone decides.

    Args: ``seed`` >= 0; ``size`` height and width in pixels.
    Returns: image (size, size, 3) uint8, mask (size, size) uint8 of 0 and 1.
    """
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size

    # The wall: tint, folds as soft ridges across a bent coordinate, vessels as thin zero lines of a noise.
    height = 0.5 * smooth_noise(rng, size, 3)
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(2, 4)
    across = x * np.cos(angle) + y * np.sin(angle) + 0.08 * smooth_noise(rng, size, 3)
    height = height + 0.5 * np.abs(np.sin(np.pi * frequency * across)) ** 0.5
    vessels = np.exp(-((smooth_noise(rng, size, 7) / 0.06) ** 2)) * rng.uniform(0.02, 0.12)
    tint = np.array([0.80, 0.47, 0.40]) + rng.normal(0, [0.05, 0.05, 0.05])
    colour = tint + 0.04 * smooth_noise(rng, size, 5)[..., None] - vessels[..., None] * np.array([0.5, 1.0, 0.9])

    # The lumps: ellipses with a wavy outline; each raises the height and shifts the tint a little.
    mask = np.zeros((size, size), dtype=bool)
    for _ in range(rng.choice([1, 1, 1, 2])):
        cy, cx = rng.uniform(0.18, 0.82, 2)
        radius = rng.uniform(0.07, 0.24)
        stretch, turn = rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)
        dx, dy = x - cx, y - cy
        a = (dx * np.cos(turn) + dy * np.sin(turn)) * stretch
        b = (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
        theta = np.arctan2(b, a)
        outline = 1 + sum(rng.normal(0, 0.09 / n) * np.cos(n * theta + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 4, 5))
        r = np.hypot(a, b) / (radius * outline)
        mask |= r < 1
        dome = np.sqrt(np.clip(1 - r**2, 0, None))
        soft = 1 / (1 + np.exp(np.clip((r - 1) * 30 * radius / 0.15, -30, 30)))  # a rim of a few pixels
        height = height + rng.uniform(0.5, 1.3) * dome * radius / 0.15
        shift = rng.normal([0.05, -0.03, -0.03], [0.05, 0.05, 0.05])
        texture = 0.05 * smooth_noise(rng, size, 24)[..., None]
        colour = colour + soft[..., None] * (shift + texture)

    # The light stands off the middle: shading by slope and distance, a dark lumen where the tube goes on.
    ly, lx = rng.uniform(0.3, 0.7, 2)
    slope_y, slope_x = np.gradient(height, 1 / size)
    toward = (slope_x * (lx - x) + slope_y * (ly - y)) / 6
    shade = np.clip(1.05 + 0.5 * toward - 0.9 * ((x - lx) ** 2 + (y - ly) ** 2), 0.15, 1.4)
    hole_y, hole_x = rng.uniform(-0.1, 1.1, 2)
    lumen = np.exp(-((x - hole_x) ** 2 + (y - hole_y) ** 2) / (2 * rng.uniform(0.08, 0.16) ** 2))
    shade = shade * (1 - 0.75 * lumen * ~mask)
    image = colour * shade[..., None]

    # Wet highlights, on lumps and off; sensor noise.
    gloss = smooth_noise(rng, size, 18)
    image = image + 0.8 * np.clip((gloss - rng.uniform(1.3, 1.9)) * (shade > 0.8), 0, 1)[..., None]
    image = image + rng.normal(0, 0.015, image.shape)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8), mask.astype(np.uint8)
