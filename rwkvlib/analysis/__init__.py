"""Measuring models: cost, what part of an image an output depends on, what tokens take from each other, and how sure a
mean of scores is."""

from .attention import implicit_attention, spatial_mixes
from .complexity import count_macs, count_parameters
from .erf import effective_receptive_field, receptive_contribution
from .receptive_field import receptive_field_radius
from .statistics import (
    Comparison,
    Interval,
    bootstrap_interval,
    compare,
    holm,
    mean_interval,
    paired_difference,
    summarise,
)

__all__ = [
    "Comparison",
    "Interval",
    "bootstrap_interval",
    "compare",
    "count_macs",
    "count_parameters",
    "effective_receptive_field",
    "holm",
    "implicit_attention",
    "mean_interval",
    "paired_difference",
    "receptive_contribution",
    "receptive_field_radius",
    "spatial_mixes",
    "summarise",
]
