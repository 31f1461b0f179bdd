"""The network's parts, in the order in which an image meets them."""

from .ccm import CrossChannelMix
from .conv import ConvNormAct, LayerNorm2d
from .decoder import DecoderBlock
from .glsp import GLSP, SqueezeExcite
from .mixing import ChannelMix, DropPath, SpatialMix
from .shift import q_shift

__all__ = [
    "GLSP",
    "ChannelMix",
    "ConvNormAct",
    "CrossChannelMix",
    "DecoderBlock",
    "DropPath",
    "LayerNorm2d",
    "SpatialMix",
    "SqueezeExcite",
    "q_shift",
]
