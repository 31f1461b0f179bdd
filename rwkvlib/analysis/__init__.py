"""Measuring models: cost, what part of an image an output depends on, and how sure a mean of scores is."""

from .complexity import count_macs, count_parameters
from .erf import effective_receptive_field, receptive_contribution
from .receptive_field import receptive_field_radius
from .statistics import Interval, bootstrap_interval, paired_difference, summarise

__all__ = [
    "Interval",
    "bootstrap_interval",
    "count_macs",
    "count_parameters",
    "effective_receptive_field",
    "paired_difference",
    "receptive_contribution",
    "receptive_field_radius",
    "summarise",
]
