"""Training: one loop for one CPU, one GPU or several (through Accelerate), that can be stopped and resumed."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data.augment import default_augmentation
from ..data.dataset import load_data
from ..models import create_model
from .checkpoint import save_checkpoint
from .evaluate import evaluate
from .losses import make_loss
from .predict import normalise


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. Two runs with the same one give the same weights on the same machine."""

    data: str
    model: str = "rwkv_unet_t"
    size: int = 128
    epochs: int = 30
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0
    num_classes: int = 1
    augment: bool = True
    mixed_precision: str = "no"  # no, bf16 or fp16
    overrides: dict = field(default_factory=dict)  # of the model, see `create_model`

    def __post_init__(self):
        for name in ("size", "epochs", "batch_size", "num_classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


def _write(path: Path, save) -> None:
    """Under a temporary name first: a run that is killed leaves the last whole file."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    save(temporary)
    os.replace(temporary, path)


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """Trains on the split ``train``, keeps the weights that are best on ``validation``.

    Writes into the folder `out`: ``best.safetensors`` (for `load_checkpoint`), ``last.pt`` (to resume from),
    ``log.json`` (what is returned) and ``config.json``.

    Args:
        resume: go on with the run that `out` holds; the result is the same as without the interruption.
        stop_after: stop once this many of the recipe's epochs are done, to be resumed later.

    Returns:
        One dict an epoch: epoch, loss, lr at its end, dice on validation (mean over images), seconds.

    Raises:
        FileExistsError: `out` holds a run already and `resume` is False.
        ValueError: `resume` with another config than the run's, or bad data (see `load_data`).
    """
    out = Path(out)
    last, config_file = out / "last.pt", out / "config.json"
    if last.exists() and not resume:
        raise FileExistsError(f"out: {str(out)!r} holds a run already; resume it, or choose another folder")
    as_stored = json.loads(json.dumps(asdict(config)))  # with lists in the place of tuples
    if resume and config_file.exists() and json.loads(config_file.read_text()) != as_stored:
        raise ValueError(f"resume: {str(config_file)!r} is of another config than the one given")
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    set_seed(config.seed)
    data = load_data(config.data, "train", size=config.size)
    validation = load_data(config.data, "validation", size=config.size)
    if len(data) < 2:
        raise ValueError(f"data: expected at least 2 training images, got {len(data)}")
    # BatchNorm cannot take a last batch of one image.
    loader = DataLoader(data, config.batch_size, shuffle=True, drop_last=len(data) >= config.batch_size)
    model = create_model(config.model, num_classes=config.num_classes, **config.overrides)
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.epochs * len(loader))
    loss_function = make_loss("binary", config.num_classes)
    augment = default_augmentation() if config.augment else None
    meta = dict(
        model=config.model,
        overrides=dict(config.overrides, num_classes=config.num_classes),
        size=config.size,
        data=Path(config.data).name,
    )
    log: list[dict] = []
    if resume and last.exists():
        state = torch.load(last, map_location="cpu", weights_only=True)
        accelerator.unwrap_model(model).load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        log = state["log"]
    out.mkdir(parents=True, exist_ok=True)
    _write(config_file, lambda p: p.write_text(json.dumps(as_stored, indent=1)))

    for epoch in range(len(log), min(config.epochs, stop_after or config.epochs)):
        start = time.perf_counter()
        set_seed(config.seed + 10_000 * (epoch + 1))  # an epoch's shuffling and augmentation depend on nothing before
        model.train()
        total = 0.0
        for batch in tqdm(loader, desc=f"epoch {epoch + 1}/{config.epochs}", disable=not progress, leave=False):
            image, mask = batch["image"], batch["mask"]
            if augment is not None:
                image, mask = augment(image, mask)
            image = normalise(image).contiguous(memory_format=torch.channels_last)
            with accelerator.autocast():
                logits = model(image)
            loss = loss_function(logits.float(), mask)
            optimiser.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            lr = schedule.get_last_lr()[0]  # of this step: the schedule goes on past its end
            schedule.step()
            total += loss.item()
        if not torch.isfinite(torch.tensor(total)):
            raise FloatingPointError(f"the loss of epoch {epoch + 1} is {total}; the last whole epoch is in {last}")
        plain = accelerator.unwrap_model(model)
        dice = evaluate(plain, validation, batch_size=config.batch_size, hd95=False)["dice"].mean()
        log.append(
            dict(
                epoch=epoch + 1,
                loss=total / len(loader),
                lr=lr,
                dice=float(dice),
                seconds=time.perf_counter() - start,
            )
        )
        if accelerator.is_main_process:
            if log[-1]["dice"] >= max(row["dice"] for row in log):
                save_checkpoint(out / "best.safetensors", plain, dict(meta, epoch=epoch + 1, dice=log[-1]["dice"]))
            state = dict(
                model=plain.state_dict(), optimiser=optimiser.state_dict(), schedule=schedule.state_dict(), log=log
            )
            _write(last, lambda p, state=state: torch.save(state, p))
            _write(out / "log.json", lambda p: p.write_text(json.dumps(log, indent=1)))
            if progress:
                row = log[-1]
                tqdm.write(f"epoch {row['epoch']}: loss {row['loss']:.4f}, validation Dice {row['dice']:.4f}")
    return log
