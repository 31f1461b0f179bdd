"""Measuring models: cost, and what part of an image an output depends on."""

from .complexity import count_macs, count_parameters
from .erf import effective_receptive_field, receptive_contribution
from .receptive_field import receptive_field_radius

__all__ = [
    "count_macs",
    "count_parameters",
    "effective_receptive_field",
    "receptive_contribution",
    "receptive_field_radius",
]
