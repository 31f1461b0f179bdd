"""Training: one loop for one CPU, one GPU or several (through Accelerate), that can be killed and resumed.

In a notebook with several GPUs: ``accelerate.notebook_launcher(train, (config, "runs/name"), num_processes=2)``.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, send_to_device, set_seed
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.augment import make_augmentation
from ..data.dataset import load_data
from ..models.baselines import build_model
from ..provenance import git_commit, library_versions
from .checkpoint import load_encoder, load_state, save_checkpoint, save_state, states, write_file
from .config import Recipe, TrainConfig
from .evaluate import evaluate
from .losses import make_loss
from .parallel import Gather, item_order
from .predict import normalise
from .schedules import make_schedule


@dataclass
class Task:
    """What `fit` has to know of what is learnt."""

    model: nn.Module
    data: Dataset  # items are dicts with "image", "name" and the target
    target: str  # its key
    loss: Callable[[Tensor, Tensor], Tensor]  # of (logits, target) of the global batch: a mean, or a ratio of sums
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    validate: Callable[[nn.Module], dict[str, float]] | None  # scores
    score: str  # the one that chooses the best weights
    meta: dict  # for the header of the weights: model, overrides, size


@dataclass
class Progress:
    """Where a run stands; what a checkpoint holds beside weights and optimiser."""

    step: int = 0
    loss: float = 0.0  # summed over the steps since the log's last row
    count: int = 0  # of these steps
    seconds: float = 0.0
    log: list[dict] = field(default_factory=list)


def start(config: Recipe, out: str | Path, resume: bool | str, progress: bool) -> Accelerator:
    """Checks that the folder `out` is free or holds this run, notes the recipe in it and prints it, seeds."""
    out, recipe = Path(out), json.loads(json.dumps(asdict(config)))  # with lists in the place of tuples
    if resume not in (True, False, "previous"):
        raise ValueError(f"resume: expected true, false or previous, got {resume!r}")
    if states(out) and not resume:
        raise FileExistsError(f"out: {str(out)!r} holds a run already; resume it, or choose another folder")
    file = out / "config.json"
    if resume and file.exists() and json.loads(file.read_text()) != recipe:
        raise ValueError(f"resume: {str(file)!r} is of another config than the one given")
    AcceleratorState._reset_state()  # a second run in one process may have another precision
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))  # for the one process that validates
    # Without `cpu` Accelerate takes several processes without a GPU for as many runs of one.
    cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision=config.mixed_precision, kwargs_handlers=[patience])
    if config.sync_batchnorm and accelerator.device.type != "cuda":
        raise ValueError("sync_batchnorm: works between GPUs only, and this run is on a CPU")
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_file(file, json.dumps(recipe, indent=1).encode())
    if progress:
        accelerator.print(config.describe())
    set_seed(config.seed)
    return accelerator


def fit(
    task: Task,
    config: Recipe,
    out: str | Path,
    accelerator: Accelerator,
    *,
    resume: bool | str = False,
    stop_after: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """The loop of `train` and `pretrain`; see there. The random numbers of a step (augmentation, DropPath) depend on
    seed, step and process alone, so that a resumed run needs no generator's state."""
    out, is_main, processes = Path(out), accelerator.is_main_process, accelerator.num_processes
    parts = processes * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size: expected a multiple of {parts} (processes x accumulate), got {config.batch_size}"
        )
    if config.batch_size > len(task.data):
        raise ValueError(f"batch_size: expected at most the {len(task.data)} training items, got {config.batch_size}")
    per_epoch = len(task.data) // config.batch_size
    total, warmup = per_epoch * config.epochs, config.warmup_epochs * per_epoch
    end = min(total, (stop_after or config.epochs) * per_epoch)
    factor = make_schedule(config.schedule, total, per_epoch, config.epochs)

    plain = task.model.to(accelerator.device, memory_format=torch.channels_last)
    average = None
    if config.ema:
        average = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    kept = average.module if average else plain  # what is validated, and saved as the result
    optimiser = torch.optim.AdamW(plain.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    now, earlier = Progress(), states(out) if resume else []
    if resume == "previous":
        if len(earlier) < 2:
            raise FileNotFoundError(f"resume: {str(out)!r} has no checkpoint before its last one")
        earlier = earlier[:-1]
    if earlier:
        weights, state = load_state(earlier[-1])
        now = Progress(**state["progress"])
        plain.load_state_dict(weights)
        optimiser.load_state_dict(state["optimiser"])
        if average:
            average.load_state_dict(state["average"])
    if config.sync_batchnorm:
        nn.SyncBatchNorm.convert_sync_batchnorm(plain)  # in place, below the top
    if config.compile:
        plain.compile()
    model, optimiser = accelerator.prepare(plain, optimiser)
    if earlier and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    # Base names only: weights must not depend on where somebody keeps their files.
    recipe = {k: Path(v).name if k in ("data", "pretrained") and v else v for k, v in asdict(config).items()}
    meta = dict(task.meta, config=recipe, commit=git_commit(), versions=library_versions())

    def step_forward(batch: dict, last_part: bool) -> float:
        image, target = batch["image"], batch[task.target]
        if task.augment is not None:
            image, target = task.augment(image, target)
        image = normalise(image).contiguous(memory_format=torch.channels_last)
        with nullcontext() if last_part else accelerator.no_sync(model):
            with accelerator.autocast():
                logits = model(image)
            logits = logits.float()
            if processes > 1:
                logits, target = Gather.apply(logits), accelerator.gather(target.contiguous())
            loss = task.loss(logits, target) / config.accumulate
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value} in step {now.step + 1}, of the items {', '.join(batch['name'])}; "
                    f"the last checkpoint is {(states(out) or [None])[-1]}"
                )
            accelerator.backward(loss)
        return value

    def read_clock() -> bool:
        """Updates the seconds; whether the time is over, for all processes at the same step."""
        now.seconds = time.perf_counter() - began
        if config.budget_seconds and processes > 1:
            now.seconds = broadcast(torch.tensor(now.seconds, device=accelerator.device)).item()
        return 0 < config.budget_seconds <= now.seconds

    order = item_order(len(task.data), config, now.step, processes, accelerator.process_index)
    pin = accelerator.device.type == "cuda"
    batches = iter(DataLoader(task.data, batch_sampler=order, num_workers=config.num_workers, pin_memory=pin))
    began = time.perf_counter() - now.seconds  # as if the run had never been interrupted
    over = read_clock()
    bar = tqdm(total=end, initial=now.step, unit="step", disable=not (progress and is_main), leave=False)
    while now.step < end and not over:
        set_seed(int(np.random.SeedSequence([config.seed, now.step, accelerator.process_index]).generate_state(1)[0]))
        model.train()
        if config.freeze_batchnorm:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        # Where time is what runs out, the schedule runs with it.
        done = max(now.step, total * now.seconds / config.budget_seconds) if config.budget_seconds else now.step
        lr = config.lr * ((now.step + 1) / warmup if now.step < warmup else factor(done))
        for group in optimiser.param_groups:
            group["lr"] = lr
        for part in range(config.accumulate):
            batch = send_to_device(next(batches), accelerator.device, non_blocking=True)
            now.loss += step_forward(batch, part == config.accumulate - 1)
        if config.clip:
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        optimiser.zero_grad()
        if average:
            average.update_parameters(plain)
        now.step, now.count = now.step + 1, now.count + 1
        bar.update()
        over = read_clock()
        last = over or now.step == end
        if last or now.step % (config.validate_every or per_epoch) == 0:
            row = dict(epoch=now.step / per_epoch, step=now.step, loss=now.loss / now.count, lr=lr)
            if is_main and task.validate is not None:
                row |= task.validate(kept)
            now.log.append(dict(row, seconds=now.seconds))
            now.loss, now.count = 0.0, 0
            if is_main:
                # A score may be undefined, and then it is no best one.
                scores = [-math.inf if math.isnan(s := r.get(task.score, math.nan)) else s for r in now.log]
                if config.choose == "last" or scores[-1] >= max(scores):
                    save_checkpoint(out / "model.safetensors", kept, dict(meta, metrics=now.log[-1]))
                if config.keep == "all":
                    (out / "kept").mkdir(exist_ok=True)
                    file = out / "kept" / f"step_{now.step:08d}.safetensors"
                    save_checkpoint(file, kept, dict(meta, metrics=now.log[-1]), dtype=torch.float16)
                write_file(out / "log.json", json.dumps(now.log, indent=1).encode())
                bar.write(", ".join(f"{k} {v:.4g}" for k, v in now.log[-1].items())) if progress else None
        if is_main and (last or now.step % (config.save_every or per_epoch) == 0):
            state = dict(
                progress=asdict(now),
                optimiser=optimiser.state_dict(),
                average=average.state_dict() if average else None,
                scaler=accelerator.scaler.state_dict() if accelerator.scaler else None,
            )
            save_state(out, now.step, plain, meta, state)
    bar.close()
    accelerator.wait_for_everyone()
    return now.log


def train(
    config: TrainConfig,
    out: str | Path,
    resume: bool | str = False,
    stop_after: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """Trains a model for segmentation on the split ``train``.

    Writes into the folder `out`: ``model.safetensors`` (for `load_checkpoint`: the weights that are best on the split
    of validation, or the last ones, as ``config.choose`` says), ``checkpoints/`` (the last two states, to resume from),
    ``log.json`` (what is returned), ``config.json``, and with ``config.keep`` "all" ``kept/`` (the weights of each
    validation).

    Args:
        resume: True goes on with the run that `out` holds, if it does: the result is the same as without the
            interruption, to the bit on a CPU where no ``budget_seconds`` ties the schedule to the clock. "previous"
            goes on from the checkpoint before the last one, where that is damaged.
        stop_after: stop once this many of the recipe's epochs are done, to be resumed later.

    Returns:
        One dict for each validation: epoch, step, loss (mean since the one before), lr (of the step), dice (mean over
        images and classes, where there is a validation split), seconds.

    Raises:
        FileExistsError: `out` holds a run already and `resume` is False.
        ValueError: `resume` with another config than the run's, a damaged checkpoint, bad data (see `load_data`).
        FloatingPointError: the loss is not finite; the message names the items. OSError: a file cannot be written.
    """
    accelerator = start(config, out, resume, progress)
    classes = max(2, config.num_classes)  # with the background
    data = load_data(config.data, "train", size=config.size, column=config.split, classes=classes)
    overrides = dict(config.overrides, num_classes=config.num_classes)
    model = build_model(config.model, **overrides)
    if config.pretrained:
        report = load_encoder(model, config.pretrained, config.overrides.get("variant"))
        overrides["variant"] = report.variant
        accelerator.print(f"pretrained={config.pretrained}: {report}")
    validate = None
    if config.validation is not None:
        validation = load_data(config.data, config.validation, size=config.size, column=config.split, classes=classes)

        def validate(model: nn.Module) -> dict[str, float]:
            table = evaluate(model, validation, protocol=config.protocol, batch_size=config.batch_size, hd95=False)
            return {"dice": float(table["dice"].mean())}

    augment = make_augmentation(config.augment, config.size)
    meta = dict(model=config.model, overrides=overrides, size=config.size, data=Path(config.data).name)
    task = Task(model, data, "mask", make_loss(config.loss, config.num_classes), augment, validate, "dice", meta)
    return fit(task, config, out, accelerator, resume=resume, stop_after=stop_after, progress=progress)
