"""Seeded generators of images with masks: the book and the tests need no download."""

from .abdomen import ORGANS, synthetic_abdomen
from .formula import HARMONICS, synthetic_formula
from .long_range import right_side, synthetic_long_range
from .polyps import synthetic_polyps
from .ultrasound import synthetic_ultrasound

__all__ = [
    "HARMONICS",
    "ORGANS",
    "right_side",
    "synthetic_abdomen",
    "synthetic_formula",
    "synthetic_long_range",
    "synthetic_polyps",
    "synthetic_ultrasound",
]
