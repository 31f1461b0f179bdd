"""Data sets as arrays, their synthetic stand-ins, and augmentation. Knows nothing of models."""

from .dataset import SegmentationData, load_data
from .synthetic import synthetic_polyps

__all__ = ["SegmentationData", "load_data", "synthetic_polyps"]
