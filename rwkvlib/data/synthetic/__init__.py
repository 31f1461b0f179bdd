"""Seeded generators of images with masks: the book and the tests need no download."""

from .long_range import right_side, synthetic_long_range
from .polyps import synthetic_polyps

__all__ = ["right_side", "synthetic_long_range", "synthetic_polyps"]
