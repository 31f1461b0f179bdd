"""A scanner's values to bytes."""

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


def stretch(volume: np.ndarray) -> np.ndarray:
    """A volume's own 0.5th to 99.5th percentile onto 0 ... 255, uint8: magnetic resonance has no unit.

    Raises: ValueError where a value is NaN.
    """
    low, high = (float(q) for q in np.percentile(volume, (0.5, 99.5)))
    return window(volume, low, max(high, low + 1e-6))
