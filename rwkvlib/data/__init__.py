"""Data sets as arrays, their synthetic stand-ins, and augmentation. Knows nothing of models."""

from .dataset import SegmentationData, load_data
from .synthetic import right_side, synthetic_long_range, synthetic_polyps

__all__ = ["SegmentationData", "load_data", "right_side", "synthetic_long_range", "synthetic_polyps"]
