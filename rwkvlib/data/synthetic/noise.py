"""Noise that varies slowly, the stuff of every synthetic image."""

import numpy as np
import torch
import torch.nn.functional as F


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Noise of mean 0 and about unit scale that varies over size / cells pixels."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells + 3, cells + 3)).astype(np.float32))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)[0, 0].numpy()
