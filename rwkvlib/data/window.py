"""Hounsfield units to bytes."""

import numpy as np


def window(volume: np.ndarray, low: float = -125, high: float = 275) -> np.ndarray:
    """Clips Hounsfield units to [low, high] and scales them to 0 ... 255, uint8, rounded.

    The defaults are those of the Synapse benchmark (TransUNet, arXiv 2102.04306).

    Raises:
        ValueError: `high` is not above `low`, or a value is NaN.
    """
    if not high > low:
        raise ValueError(f"high: expected more than low = {low}, got {high}")
    volume = np.asarray(volume)
    if np.isnan(volume).any():
        raise ValueError("volume: expected numbers, got NaN")
    return np.rint((np.clip(volume, low, high) - low) * (255 / (high - low))).astype(np.uint8)
