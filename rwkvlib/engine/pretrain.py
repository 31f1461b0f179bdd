"""Pretraining of an encoder as a classifier, on folders of images."""

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.augment import imagenet_augmentation
from ..models import create_model
from .config import PretrainConfig
from .predict import normalise
from .train import Task, fit, start

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class ImageFolder(Dataset):
    """Images ``folder/CLASS/*``; classes are numbered in the order of their names. An item is a dict of ``image``
    (3, size, size) in [0, 1], ``label`` and ``name``.

    An image is resized so that its shorter side is `size`, and its middle is taken.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a class without images, and, when it is read, an image that does not decode.
    """

    def __init__(self, folder: str | Path, size: int):
        self.folder, self.size = Path(folder), size
        if not self.folder.is_dir():
            raise FileNotFoundError(f"data: expected a folder with one folder for each class, got {str(folder)!r}")
        self.classes = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        self.items = []
        for label, name in enumerate(self.classes):
            files = sorted(f for f in (self.folder / name).rglob("*") if f.suffix.lower() in ENDINGS)
            if not files:
                raise ValueError(f"data: no images in the class folder {str(self.folder / name)!r}")
            self.items += [(f, label) for f in files]

    def __len__(self) -> int:
        return len(self.items)

    def sha256(self) -> str:
        """Of the files' names and sizes; reading every image would take as long as an epoch."""
        lines = [f"{file.relative_to(self.folder).as_posix()} {file.stat().st_size}" for file, _ in self.items]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __getitem__(self, i: int) -> dict[str, Tensor | int | str]:
        file, label = self.items[i]
        try:
            image = Image.open(file).convert("RGB")
        except OSError as error:
            raise ValueError(f"data: {str(file)!r} does not decode: {error}") from error
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize((self.size,) * 2, Image.BICUBIC, box=(left, top, left + side, top + side))
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return {"image": tensor, "label": label, "name": file.relative_to(self.folder).as_posix()}


def _middle(image: Tensor, size: int) -> Tensor:
    edge = (image.shape[-1] - size) // 2
    return image[..., edge : edge + size, edge : edge + size]


@torch.inference_mode()
def accuracy(model: nn.Module, data: Dataset, size: int, batch_size: int, num_workers: int = 0) -> float:
    """The share of images whose highest logit is their label's, when their middle (size, size) is shown."""
    model.eval()
    device, right = next(model.parameters()).device, 0
    for batch in tqdm(DataLoader(data, batch_size, num_workers=num_workers), desc="validation", leave=False):
        image = normalise(_middle(batch["image"].to(device), size))
        right += (model(image).argmax(1).cpu() == batch["label"]).sum().item()
    return right / len(data)


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    resume: bool | str = False,
    stop_after: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> list[dict]:
    """Trains a ``rwkv_encoder_*`` to tell the classes of ``data/train/CLASS/*`` apart, by smoothed cross-entropy.

    Arguments, files and errors as of `rwkvlib.engine.train.train`; the score is the accuracy on
    ``data/validation/CLASS/*``. ``model.safetensors`` is what segmentation takes as ``pretrained=``.
    """
    out = Path(out).expanduser()
    if config.augment not in ("imagenet", "none"):
        raise ValueError(f"augment: expected imagenet or none for classification, got {config.augment!r}")
    with start(config, out, resume, progress, command) as accelerator:
        stored = config.size * 8 // 7  # 256 for 224, as is usual: crops are taken of it
        data = ImageFolder(Path(config.data) / "train", stored)
        validation = ImageFolder(Path(config.data) / "validation", stored)
        for folder in (data, validation):
            if len(folder.classes) != config.num_classes or folder.classes != data.classes:
                raise ValueError(
                    f"num_classes: expected {config.num_classes} classes, the same for train and validation, "
                    f"got {len(folder.classes)} in {str(folder.folder)!r}"
                )
        overrides = dict(config.overrides, num_classes=config.num_classes)
        meta = dict(model=config.model, overrides=overrides, size=config.size, data=Path(config.data).name)
        imagenet = imagenet_augmentation(config.size)

        def augment(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            return imagenet(image) if config.augment == "imagenet" else _middle(image, config.size), label

        def validate(model: nn.Module) -> dict[str, float]:
            return {"accuracy": accuracy(model, validation, config.size, config.batch_size, config.num_workers)}

        task = Task(
            model=create_model(config.model, **overrides),
            data=data,
            target="label",
            loss=nn.CrossEntropyLoss(label_smoothing=config.label_smoothing),
            augment=augment,
            validate=validate,
            score="accuracy",
            meta=meta,
            hashes={"train": data.sha256(), "validation": validation.sha256()},
            as_validated=lambda image: _middle(image, config.size),
        )
        return fit(task, config, out, accelerator, resume=resume, stop_after=stop_after, progress=progress)
