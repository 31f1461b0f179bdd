"""Pretraining of an encoder without labels: it learns to give the feature maps of a network that knows ImageNet."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from ..data.augment import make_augmentation
from ..data.pictures import PictureStream
from ..models import Encoder
from ..models.config import ModelConfig, override
from ..models.lite0 import CHANNELS, Lite0
from ..models.registry import MODELS
from .config import TeacherConfig
from .predict import normalise
from .train import Task, fit, start

STRIDES = (8, 16, 32)  # of the maps that are learnt
TAUGHT = CHANNELS[2:]
CALIBRATION = 64  # pictures that give the means and deviations of the teacher's channels
HELD_OUT = 64  # pictures that the agreement is measured on


class Student(nn.Module):
    """An encoder with a linear head for each of the teacher's maps; stage 4, averaged over 2 x 2, stands for stride 32.

    Images (B, 3, H, W) to (B, N): the maps of strides 8, 16 and 32, one after the other, each flattened.
    """

    divisor = Lite0.divisor

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        _, _, stage3, stage4 = encoder.config.dims
        self.heads = nn.ModuleList(nn.Conv2d(d, c, 1) for d, c in zip((stage3, stage4, stage4), TAUGHT, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        *_, x3, x4 = self.encoder.features(x)
        maps = [head(y) for head, y in zip(self.heads, (x3, x4, F.avg_pool2d(x4, 2)), strict=True)]
        return torch.cat([y.flatten(1) for y in maps], 1)


class Teacher(nn.Module):
    """EfficientNet-Lite0's maps of strides 8, 16 and 32 of (B, 3, H, W) images in [0, 1], each channel standardised
    over `pictures` (N, 3, H, W), and flattened as `Student` does."""

    def __init__(self, pictures: Tensor):
        super().__init__()
        self.net = Lite0().eval()
        with torch.no_grad():
            maps = self.net(normalise(pictures))[2:]
        for stride, y in zip(STRIDES, maps, strict=True):
            self.register_buffer(f"mean{stride}", y.mean((0, 2, 3), keepdim=True))
            self.register_buffer(f"std{stride}", y.std((0, 2, 3), keepdim=True).clamp(min=1e-3))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        maps = self.net(normalise(image))[2:]
        means, stds = ([getattr(self, f"{what}{s}") for s in STRIDES] for what in ("mean", "std"))
        scaled = [(y - m) / s for y, m, s in zip(maps, means, stds, strict=True)]
        return torch.cat([y.flatten(1) for y in scaled], 1)


def lengths(size: int) -> list[int]:
    """How many of the numbers of a row belong to each of the three maps."""
    return [c * (size // s) ** 2 for c, s in zip(TAUGHT, STRIDES, strict=True)]


def imitation_loss(given: Tensor, wanted: Tensor, size: int) -> Tensor:
    """The mean over the three maps of each one's smooth L1 distance."""
    parts = zip(given.split(lengths(size), 1), wanted.split(lengths(size), 1), strict=True)
    return torch.stack([F.smooth_l1_loss(a, b) for a, b in parts]).mean()


def explained(given: Tensor, wanted: Tensor, size: int) -> list[float]:
    """Of each map the share of the teacher's variance that the student explains, over all pictures and channels."""
    parts = zip(given.split(lengths(size), 1), wanted.split(lengths(size), 1), strict=True)
    return [(1 - F.mse_loss(a, b) / b.var()).item() for a, b in parts]


def _stack(data: PictureStream, numbers: Sequence[int]) -> Tensor:
    return torch.stack([data[i]["image"] for i in numbers])


def imitate(
    config: TeacherConfig,
    out: str | Path,
    resume: bool | str = False,
    stop_after: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> list[dict]:
    """Trains the encoder of a ``rwkv_encoder_*`` to match the maps of EfficientNet-Lite0 on pictures without labels.

    Arguments, files and errors as of `rwkvlib.engine.train.train`; the scores of the log are the shares of the
    teacher's variance that are explained at each stride, on pictures that are held out, and their mean, ``explained``.
    ``model.safetensors`` holds the encoder without the heads, which is what segmentation takes as ``pretrained=``.

    Raises: ImportError without the extra ``teacher``.
    """
    out = Path(out).expanduser()
    if config.size % Lite0.divisor:
        raise ValueError(f"size: expected a multiple of {Lite0.divisor}, which the teacher needs, got {config.size}")
    with start(config, out, resume, progress, command) as accelerator:
        whole = PictureStream(config.data, config.images + CALIBRATION + HELD_OUT, config.size, config.seed)
        data = Subset(whole, range(config.images))
        sizes = MODELS[config.model].config
        assert isinstance(sizes, ModelConfig)  # as those of every encoder
        encoder = Encoder(override(sizes, config.overrides))
        if encoder.config.stem_stride != 1:
            raise ValueError(
                f"overrides.stem_stride: expected 1, as stages 3 and 4 learn the maps of strides 8 and 16, got "
                f"{encoder.config.stem_stride}"
            )
        calibration = _stack(whole, range(config.images, config.images + CALIBRATION))
        teacher = Teacher(calibration).to(accelerator.device)
        held_out = _stack(whole, range(config.images + CALIBRATION, len(whole))).to(accelerator.device)
        wanted = teacher(held_out)
        move = make_augmentation(config.augment, config.size)

        def augment(image: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            if move is not None:
                image = move(image, image[:, :1])[0].clamp(0, 1)
            return image, teacher(image)

        @torch.no_grad()
        def validate(model: nn.Module) -> dict[str, float]:
            model.eval()
            given = torch.cat([model(normalise(x)).float() for x in held_out.split(config.batch_size)])
            shares = explained(given, wanted, config.size)
            named = {f"explained_{s}": share for s, share in zip(STRIDES, shares, strict=True)}
            return {"explained": sum(shares) / len(shares)} | named

        task = Task(
            model=Student(encoder),
            data=data,
            target="number",
            loss=lambda given, wanted: imitation_loss(given, wanted, config.size),
            augment=augment,
            validate=validate,
            score="explained",
            meta=dict(model=config.model, overrides=config.overrides, size=config.size, data="pictures"),
            hashes={"train": whole.sha256()},
            part=lambda student: student.encoder,
        )
        return fit(task, config, out, accelerator, resume=resume, stop_after=stop_after, progress=progress)
