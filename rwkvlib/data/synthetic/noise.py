"""Noise that varies slowly, the stuff of every synthetic image."""

import numpy as np
import torch
import torch.nn.functional as F


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Noise of mean 0 and about unit scale that varies over size / cells pixels."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells + 3, cells + 3)).astype(np.float32))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)[0, 0].numpy()


def smooth_volume(rng: np.random.Generator, shape: tuple[int, int, int], cells: int) -> np.ndarray:
    """As `smooth_noise`, for a volume: about `cells` cells along each axis."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *[cells + 1] * 3)).astype(np.float32))
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0].numpy()


def blurred_noise(rng: np.random.Generator, size: int, sigma_y: float, sigma_x: float) -> np.ndarray:
    """White noise after a Gaussian of these widths in pixels, scaled back to unit variance; it wraps at the borders."""
    frequency = np.fft.fftfreq(size)
    y, x = (np.exp(-2 * (np.pi * sigma * frequency) ** 2) for sigma in (sigma_y, sigma_x))
    transfer = y[:, None] * x
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * transfer).real
    return noise / np.sqrt((transfer**2).mean())
