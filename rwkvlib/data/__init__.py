"""Data sets as arrays, their synthetic stand-ins, and augmentation. Knows nothing of models."""

from .dataset import SegmentationData, iter_cases, load_data
from .synthetic import (
    ORGANS,
    right_side,
    synthetic_abdomen,
    synthetic_formula,
    synthetic_long_range,
    synthetic_polyps,
    synthetic_ultrasound,
)
from .window import stretch, window

__all__ = [
    "ORGANS",
    "SegmentationData",
    "iter_cases",
    "load_data",
    "right_side",
    "stretch",
    "synthetic_abdomen",
    "synthetic_formula",
    "synthetic_long_range",
    "synthetic_polyps",
    "synthetic_ultrasound",
    "window",
]
