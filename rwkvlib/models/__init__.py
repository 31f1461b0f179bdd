"""Models by name: sizes are rows of a table, see registry.py."""

from .config import CONFIGS, SMALL_CONFIGS, ModelConfig
from .encoder import Config, Encoder
from .official import LoadReport, load_official
from .registry import build_model, create_model, model_names
from .unet import RWKVUNet

__all__ = [
    "CONFIGS",
    "SMALL_CONFIGS",
    "Config",
    "Encoder",
    "LoadReport",
    "ModelConfig",
    "RWKVUNet",
    "build_model",
    "create_model",
    "load_official",
    "model_names",
]
