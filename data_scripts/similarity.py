"""What an image shows, in few numbers: to find copies of it that were resized, renamed or compressed again."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

SIDE = 24
# What the known duplicates of the benchmark sets have at least; see the data chapter for how the counts depend on it.
NEAR = 0.995


def thumbnail(image: Image.Image) -> np.ndarray:
    """SIDE x SIDE grey means, centred and of length 1: the product of two is their correlation."""
    small = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BOX), dtype=np.float64).mean(2).ravel()
    small -= small.mean()
    return small / max(np.linalg.norm(small), 1e-9)


def fingerprint(image: Image.Image) -> str:
    """The difference hash of 256 bits, hexadecimal: is each cell of a 16 x 17 grid darker than its right neighbour?"""
    grid = np.asarray(image.convert("L").resize((17, 16), Image.BOX), dtype=np.int16)
    return np.packbits(grid[:, :-1] < grid[:, 1:]).tobytes().hex()


def digest(image: Image.Image) -> bytes:
    """The SHA-256 of an image's size and pixels: that of exact copies."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()


def copies(thumbnails: Sequence[np.ndarray], digests: Sequence[bytes], near: float = NEAR) -> Iterator[tuple]:
    """The pairs of images that are exact copies or whose thumbnails correlate above `near`: the numbers of both, the
    correlation, and whether they are exact copies."""
    shared, stack = Counter(digests), np.stack(thumbnails)
    for i in range(len(stack)):  # row by row: all at once is N x N numbers
        correlation = stack[i + 1 :] @ stack[i]
        same = {j for j in range(i + 1, len(stack)) if digests[j] == digests[i]} if shared[digests[i]] > 1 else set()
        for j in sorted({*(np.flatnonzero(correlation > near) + i + 1).tolist(), *same}):
            yield i, j, float(correlation[j - i - 1]), j in same
