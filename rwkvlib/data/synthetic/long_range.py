"""Images whose mask at one place depends on a cue at a chosen distance: what can a network know there?"""

import numpy as np

from .noise import smooth_noise

PERIOD = 4  # of the cue's stripes, pixels


def synthetic_long_range(
    seed: int, size: int = 128, distance: int = 32, *, flip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask; the same seed, size and distance always give the same.

    A disc, yellow above and green below, lies on tissue, and a striped square `distance` pixels away from it, in any
    direction: the Chebyshev distance (the larger of the distances in rows and columns, as a square window counts)
    between the nearest pixels of the two is exactly that. Upright stripes make the disc's upper half the foreground,
    level ones its lower half. The two kinds of square are one and the same, turned by 90 degrees, noise included. So
    the histograms of the two images, and with them mean and variance, are equal; and all pixels outside the square
    are the same.

    Args:
        seed: at least 0.
        size: height and width in pixels, at least 32. The disc takes about a sixth of it, the square a fifth.
        distance: in pixels, at least 1.
        flip: turn the cue, and with it the mask; everything else stays.

    Returns:
        image (size, size, 3) uint8, mask (size, size) uint8 of 0 and 1.

    Raises:
        ValueError: disc, square and distance do not fit into the size.
    """
    if size < 32:
        raise ValueError(f"size: expected at least 32, got {size}")
    disc, cue = 2 * round(size / 12), 2 * (size * 3 // 32)
    longest = size - disc - cue + 1
    if not 1 <= distance <= longest:
        raise ValueError(f"distance: expected 1 to {longest} at size {size}, got {distance}")
    rng = np.random.default_rng(seed)
    upright = bool(rng.integers(2)) != flip  # the one thing that the label decides on; nothing else asks for it

    # Along one axis the distance is exact; across it the middles are at most as far apart.
    axis, before = rng.integers(2), bool(rng.integers(2))
    start = rng.integers(size - disc - cue - distance + 2)
    along = (start + cue + distance - 1, start) if before else (start, start + disc + distance - 1)
    disc_across = rng.integers(size - disc + 1)
    middle = int(disc_across) + disc // 2 - cue // 2
    cue_across = rng.integers(max(0, middle - distance), min(size - cue, middle + distance) + 1)
    corners = [(along[0], disc_across), (along[1], cue_across)]
    (disc_y, disc_x), (cue_y, cue_x) = corners if axis == 0 else [corner[::-1] for corner in corners]

    tint = np.array([0.62, 0.40, 0.38]) + rng.normal(0, 0.04, 3)
    image = tint + 0.05 * smooth_noise(rng, size, 4)[..., None] + 0.03 * smooth_noise(rng, size, 20)[..., None]
    y, x = np.mgrid[0:size, 0:size] - np.array([disc_y, disc_x])[:, None, None] - (disc - 1) / 2
    r = np.hypot(y, x) / (disc / 2)
    inside = r < 1
    dome = np.sqrt(np.clip(1 - r**2, 0, None))
    halves = np.where((y < 0)[..., None], [0.90, 0.75, 0.35], [0.45, 0.65, 0.40])  # each can be told for itself
    image = np.where(inside[..., None], halves * (0.7 + 0.3 * dome)[..., None], image)
    image = image + rng.normal(0, 0.02, image.shape)

    phase = rng.integers(PERIOD)
    stripes = np.where((np.arange(cue) + phase) % PERIOD < PERIOD // 2, 0.28, -0.28)
    patch = np.array([0.45, 0.5, 0.55]) + stripes[None, :, None] + rng.normal(0, 0.02, (cue, cue, 3))
    image[cue_y : cue_y + cue, cue_x : cue_x + cue] = patch if upright else np.rot90(patch)
    mask = inside & ((y < 0) == upright)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8), mask.astype(np.uint8)


def right_side(scores: np.ndarray, masks: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """For each image whether the disc's right half is the one that is predicted; the mean is the side accuracy.

    Args:
        scores: (N, H, W), the larger the more likely foreground (logits, or a binary prediction).
        masks: (N, H, W) of `synthetic_long_range`.
        flipped: (N, H, W), the masks of the same seeds with ``flip=True``: the halves that are wrong.

    Returns:
        (N,): 1 where the scores' sum over the right half is the larger one, 0 where it is the smaller, 0.5 for a tie.
    """
    right, wrong = ((scores * half).sum((1, 2), dtype=np.float64) for half in (masks, flipped))
    return (1 + np.sign(right - wrong)) / 2
