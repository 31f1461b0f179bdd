"""Pretraining on formula images: encoder and decoder learn to tell contours apart, generated as they are asked for."""

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import Dataset

from ..data.augment import make_augmentation
from ..data.dataset import load_data
from ..data.synthetic import synthetic_formula
from .config import FormulaConfig
from .evaluate import evaluate
from .losses import DeepSupervision, make_loss
from .train import Task, fit, initial_model, start

HELD_OUT = 64  # images of the set's split of validation


class FormulaStream(Dataset):
    """`count` labelled images of `synthetic_formula`, made when they are asked for; item i depends on the seed and i
    alone. An item is a dict of ``image`` (3, size, size) in [0, 1], ``mask`` (1, size, size) float32 class indices, and
    ``name``, the seed of `synthetic_formula`."""

    def __init__(self, count: int, size: int, seed: int = 0):
        self.count, self.size, self.seed = count, size, seed

    def __len__(self) -> int:
        return self.count

    def sha256(self) -> str:
        """Of the seed, the size and the first two items."""
        digest = hashlib.sha256(f"{self.seed} {self.size}".encode())
        for i in range(min(2, self.count)):
            for array in self._make(i)[1:]:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _make(self, i: int) -> tuple[int, np.ndarray, np.ndarray]:
        seed = int(np.random.default_rng([self.seed, i]).integers(2**31))
        return seed, *synthetic_formula(seed, self.size)

    def __getitem__(self, i: int) -> dict[str, Tensor | str]:
        seed, image, mask = self._make(i)
        image = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        return {"image": image, "mask": torch.from_numpy(mask)[None].float(), "name": str(seed)}


def pretrain_formula(
    config: FormulaConfig,
    out: str | Path,
    resume: bool | str = False,
    stop_after: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> list[dict]:
    """Trains a network for segmentation, encoder and decoder, on images of `synthetic_formula`, none seen twice.

    Arguments, files and errors as of `rwkvlib.engine.train.train`; the score is the mean Dice over images and classes
    on 64 images of the set's split of validation. ``model.safetensors`` is what segmentation takes as ``pretrained=``,
    with any number of classes: the head is then a new one.
    """
    out = Path(out).expanduser()
    with start(config, out, resume, progress, command) as accelerator:
        data = FormulaStream(config.images, config.size, config.seed)
        validation = load_data(f"{config.data}:{4 * HELD_OUT}", "validation", size=config.size)
        model, overrides = initial_model(config, accelerator)

        def validate(model: nn.Module) -> dict[str, float]:
            table = evaluate(model, validation, batch_size=config.batch_size, hd95=False)
            return {"dice": float(table["dice"].mean())}

        task = Task(
            model=model,
            data=data,
            target="mask",
            loss=DeepSupervision(make_loss(config.loss, config.num_classes)),
            augment=make_augmentation(config.augment, config.size),
            validate=validate,
            score="dice",
            meta=dict(model=config.model, overrides=overrides, size=config.size, data=config.data),
            hashes={"train": data.sha256(), "validation": validation.sha256()},
        )
        return fit(task, config, out, accelerator, resume=resume, stop_after=stop_after, progress=progress)
