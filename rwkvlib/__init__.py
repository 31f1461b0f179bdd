"""RWKV-UNet (arXiv 2501.08458): the Bi-WKV operator, the network and its training, on any machine."""

__version__ = "0.1.0"

from .data.pixels import normalise
from .engine.checkpoint import load_checkpoint, load_pretrained
from .engine.features import features
from .engine.predict import predict
from .models import create_model, load_official
from .wkv import bi_wkv

__all__ = [
    "__version__",
    "bi_wkv",
    "create_model",
    "features",
    "load_checkpoint",
    "load_official",
    "load_pretrained",
    "normalise",
    "predict",
]
