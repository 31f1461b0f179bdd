"""Training: one loop for one CPU, one GPU or several (through Accelerate), that can be killed and resumed.

In a notebook with several GPUs: ``accelerate.notebook_launcher(train, (config, "runs/name"), num_processes=2)``.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn as nn
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, send_to_device, set_seed
from filelock import FileLock, Timeout
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ..data.augment import make_augmentation
from ..data.dataset import FileData, Patches, SegmentationData, class_names, open_data
from ..data.pixels import Size, pair
from ..layers import DropPath
from ..models.registry import create_model, divisor_of
from ..provenance import git_commit, library_versions, provenance, to_json, write_result
from .checkpoint import load_encoder, load_state, save_checkpoint, save_state, states, write_file
from .config import ADDED, SEEN, FormulaConfig, Recipe, TrainConfig, base_names, with_added
from .evaluate import evaluate
from .losses import DeepSupervision, make_loss
from .parallel import Gather, item_order
from .predict import normalise
from .schedules import make_schedule
from .watching import SHARE as PICTURES
from .watching import all_or_nothing, write_curves, write_samples

# Fields that change no weight: a run may be resumed with others.
FREE = ("data", "data_on", "num_workers", "save_every")
LENGTH = ("epochs", "steps", "budget_seconds")
PATIENCE = {"cuda": 20}  # steps from one look at the losses to the next, by kind of device; 1 on others
TIMED, FEW = 5, 100  # steps after which a run says how many its time will do for, and how many are few
SHARE = 0.25  # of a GPU's free memory that a set may take


def keep_on_device(data: Dataset, where: str, device: torch.device) -> bool:
    """Whether a set's bytes lie on the device, where batches are then cut: `where` is auto, device or host.

    Raises: ValueError where `where` is device, and the data are no `SegmentationData`.
    """
    fits = isinstance(data, SegmentationData)
    if where == "device" and not fits:
        raise ValueError(f"data_on: 'device' takes SegmentationData, got {type(data).__name__}")
    if where != "auto":
        return where == "device"
    return fits and device.type == "cuda" and data.nbytes < SHARE * torch.cuda.mem_get_info(device)[0]


@dataclass
class Task:
    """What `fit` has to know of what is learnt."""

    model: nn.Module
    data: Dataset  # items are dicts with "image", "name" and the target
    target: str  # its key
    # Of (logits, target) of the global batch: a mean, or a ratio of sums. A network may give a list of logits.
    loss: Callable[[Tensor | list[Tensor], Tensor], Tensor]
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    validate: Callable[[nn.Module], dict[str, float]] | None  # scores
    score: str  # the one that chooses the best weights
    meta: dict  # for the header of the weights: model, overrides, size
    hashes: dict[str, str] = field(default_factory=dict)  # of the data, by what they are for
    as_validated: Callable[[Tensor], Tensor] | None = None  # what is done to an image in the place of `augment`
    samples: SegmentationData | FileData | None = None  # of whose images predictions are shown
    window: Size | None = None  # that they are predicted in
    overlapping: bool = False  # whether their labels are
    part: Callable[[nn.Module], nn.Module] = lambda model: model  # of the model, that is kept as the result
    freeze: bool = False  # the encoder
    encoder_lr: float | None = None  # None: the recipe's lr


@dataclass
class Progress:
    """Where a run stands; what a checkpoint holds beside weights and optimiser."""

    step: int = 0
    loss: float = 0.0  # summed over the steps since the log's last row
    count: int = 0  # of these steps
    seconds: float = 0.0
    log: list[dict] = field(default_factory=list)


def differences(recipe: dict, held: dict) -> list[str]:
    """What keeps a run from going on by another recipe than its own, one line a field."""
    held = with_added(held, recipe)
    free = (*FREE, *LENGTH) if recipe["schedule"] == held["schedule"] == "constant" else FREE
    fields = [f for f in dict.fromkeys([*recipe, *held]) if f not in free and recipe.get(f) != held.get(f)]
    lines = [f"{f} is {held.get(f)!r} in the run and {recipe.get(f)!r} in the recipe" for f in fields]
    if set(LENGTH) & set(fields):
        lines.append(
            f"the schedule {held['schedule']!r} was planned for the run's length, and only 'constant' can be extended; "
            "a new run takes these weights as pretrained=FOLDER"
        )
    return lines


@contextmanager
def start(config: Recipe, out: Path, resume: bool | str, progress: bool, command: str | None) -> Iterator[Accelerator]:
    """Checks that the folder `out` is free or holds this run, keeps others out of it while this one lasts, notes the
    command in it, which a resumed run keeps, prints the recipe, seeds."""
    recipe = json.loads(to_json(asdict(config)))  # with lists in the place of tuples
    if resume not in (True, False, "previous"):
        raise ValueError(f"resume: expected true, false or previous, got {resume!r}")
    AcceleratorState._reset_state()  # a second run in one process may have another precision
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))  # for the one process that validates
    # Without `cpu` Accelerate takes several processes without a GPU for as many runs of one.
    cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision=config.mixed_precision, kwargs_handlers=[patience])
    if config.sync_batchnorm and accelerator.device.type != "cuda":
        raise ValueError("sync_batchnorm: works between GPUs only, and this run is on a CPU")
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
    with only_run(out) if accelerator.is_main_process else nullcontext():
        file = out / "config.json"
        if not resume and (states(out) or (out / "model.safetensors").exists()):
            raise FileExistsError(f"out: {str(out)!r} holds a run already; resume it, or choose another folder")
        if states(out) and file.exists():
            found = differences(recipe, json.loads(file.read_text(encoding="utf8")))
            if found:
                raise ValueError(f"resume: {str(file)!r} is of another config than the one given: {'; '.join(found)}")
        accelerator.wait_for_everyone()  # to look before the main process writes
        if accelerator.is_main_process and command is not None and not states(out):
            write_result(out / "provenance.json", {"provenance": provenance(config.seed, command)})
        if progress:
            accelerator.print(config.describe())
        set_seed(config.seed)
        yield accelerator


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Holds the folder `out` for one run at a time. The lock is the system's, and ends with its process however that
    ends. Raises: FileExistsError where another process or thread trains into it."""
    lock = FileLock(out / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise FileExistsError(
            f"out: another training writes into {str(out)!r} at present; wait for it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove a file that is open, and it does no harm
            (out / ".lock").unlink()
        lock.release()


def leave_interrupts(worker: int) -> None:
    """In a worker of the DataLoader: Ctrl-C is the main process's, which needs its workers to the end of a step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interruptible(processes: int) -> Iterator[Callable[[], bool]]:
    """While it lasts the first Ctrl-C only asks for the end of the run, so that it comes between two steps; the second
    one ends it at once. Gives the function that says whether the end was asked for."""
    asked = threading.Event()
    # Several processes could not agree on the step, and a thread gets no signal: there Ctrl-C ends at once.
    if processes > 1 or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number, frame):
        asked.set()
        signal.signal(signal.SIGINT, before)
        tqdm.write("stopping after this step; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


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
    seed, step and process alone, so that a resumed run needs no generator's state. With `progress` it draws the
    pictures of `watching`."""
    divisor, (field_name, size) = divisor_of(task.model), config.trained_at
    for n in pair(size):
        if n % divisor:
            raise ValueError(
                f"{field_name}: expected a multiple of {divisor} for {config.model}, got {n}; near ones: "
                f"{n // divisor * divisor or divisor}, {(n // divisor + 1) * divisor}"
            )
    out, is_main, processes = Path(out), accelerator.is_main_process, accelerator.num_processes
    parts = processes * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size: expected a multiple of {parts} (processes x accumulate), got {config.batch_size}"
        )
    if config.batch_size > len(task.data):
        raise ValueError(f"batch_size: expected at most the {len(task.data)} training items, got {config.batch_size}")
    per_epoch = len(task.data) // config.batch_size
    total, warmup = config.steps or per_epoch * config.epochs, config.warmup_epochs * per_epoch
    end = min(total, stop_after * per_epoch) if stop_after else total
    factor = make_schedule(config.schedule, total, per_epoch, None if config.steps else config.epochs)

    plain = task.model.to(accelerator.device, memory_format=torch.channels_last)
    average = None
    if config.ema:
        average = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    kept = average.module if average else plain  # what is validated, and saved as the result
    fused = accelerator.device.type == "cuda"  # one kernel for all parameters, in the place of some for each
    encoder = encoder_of(plain)[1] if task.freeze or task.encoder_lr else nn.Module()
    if task.freeze:
        encoder.requires_grad_(False)
    groups, rates = [{"params": [p for p in plain.parameters() if p.requires_grad]}], [config.lr]
    if task.encoder_lr:
        inside = set(encoder.parameters())
        groups = [{"params": [p for p in plain.parameters() if (p in inside) == which]} for which in (False, True)]
        rates = [config.lr, task.encoder_lr]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    now, earlier = Progress(), states(out) if resume else []
    if resume == "previous":
        if len(earlier) < 2:
            raise FileNotFoundError(f"resume: {str(out)!r} has no checkpoint before its last one")
        earlier = earlier[:-1]
    if earlier:
        weights, state = load_state(earlier[-1])
        for what, digest in state.get("hashes", {}).items():
            if task.hashes.get(what, digest) != digest:
                raise ValueError(
                    f"resume: the {what} data of {config.data!r} are others than those that the run began with; "
                    "put them back, or train anew into another folder"
                )
        now = Progress(**state["progress"])
        plain.load_state_dict(weights)
        optimiser.load_state_dict(state["optimiser"])
        if average:
            average.load_state_dict(state["average"])
    if is_main:
        write_file(out / "config.json", to_json(asdict(config)).encode())
    if config.sync_batchnorm:
        nn.SyncBatchNorm.convert_sync_batchnorm(plain)  # in place, below the top
    if config.compile:
        plain.compile()
    model, optimiser = accelerator.prepare(plain, optimiser)
    if earlier and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    recipe = {k: base_names(k, v) for k, v in asdict(config).items()}
    meta = dict(task.meta, config=recipe, commit=git_commit(), versions=library_versions())

    # On a GPU nobody waits for the loss in each step: it is read after some steps, with the items that it is of.
    pending: list[tuple[int, Sequence[str], Tensor]] = []
    patience = PATIENCE.get(accelerator.device.type, 1)

    def read_losses() -> None:
        if not pending:
            return
        values = torch.stack([loss for _, _, loss in pending]).tolist()
        for (step, names, _), value in zip(pending, values, strict=True):
            if not math.isfinite(value):
                kept = states(out)
                raise FloatingPointError(
                    f"the loss is {value} in step {step}, of the items {', '.join(names)}; "
                    f"the last checkpoint is {kept[-1] if kept else None}"
                )
            now.loss += value
        pending.clear()

    def step_forward(batch: dict, last_part: bool) -> None:
        image, target = batch["image"], batch[task.target]
        if task.augment is not None:
            image, target = task.augment(image, target)
        image = normalise(image).contiguous(memory_format=torch.channels_last)
        with nullcontext() if last_part else accelerator.no_sync(model):
            with accelerator.autocast(), named_errors(config, image):
                outputs = model(image)
            several = isinstance(outputs, (list, tuple))
            logits = [x.float() for x in (outputs if several else [outputs])]
            if processes > 1:
                logits, target = [Gather.apply(x) for x in logits], accelerator.gather(target.contiguous())
            loss = task.loss(logits if several else logits[0], target) / config.accumulate
            pending.append((now.step + 1, batch["name"], loss.detach()))
            if patience == 1:  # before a gradient that is not finite gets into the weights
                read_losses()
            accelerator.backward(loss)

    def read_clock() -> bool:
        """Updates the seconds; whether the time is over, for all processes at the same step."""
        now.seconds = time.perf_counter() - began
        if config.budget_seconds and processes > 1:
            now.seconds = broadcast(torch.tensor(now.seconds, device=accelerator.device)).item()
        return 0 < config.budget_seconds <= now.seconds

    def exhausted() -> bool:
        """Whether the best validation lies further back than the recipe's patience, for all processes alike."""
        if not config.patience or not now.log:
            return False
        scores = [score(row, task.score) for row in now.log]  # the main process's alone has them
        best, last = now.log[scores.index(max(scores))], now.log[-1]
        unit, length = ("seconds", config.budget_seconds) if config.budget_seconds else ("step", total)
        found = last[unit] - best[unit] >= config.patience * length
        return bool(broadcast(torch.tensor(int(found), device=accelerator.device))) if processes > 1 else found

    order: Iterator[list] = item_order(len(task.data), config, now.step, processes, accelerator.process_index)
    if isinstance(task.data, Patches):  # which are drawn anew at each step
        parts_before = enumerate(order, now.step * config.accumulate)
        order = ([(i, n // config.accumulate) for i in part] for n, part in parts_before)
    batches: Iterator[dict]
    if keep_on_device(task.data, config.data_on, accelerator.device):
        batches = task.data.batches_on(accelerator.device, order)
    else:
        batches = iter(
            DataLoader(
                task.data,
                batch_sampler=order,
                num_workers=config.num_workers,
                pin_memory=accelerator.device.type == "cuda",
                worker_init_fn=leave_interrupts,
            )
        )
    began = time.perf_counter() - now.seconds  # as if the run had never been interrupted
    over = read_clock() or exhausted()
    bar = tqdm(total=end, initial=now.step, unit="step", disable=not (progress and is_main), leave=False)

    def save() -> None:
        state = dict(
            progress=asdict(now),
            optimiser=optimiser.state_dict(),
            average=average.state_dict() if average else None,
            scaler=accelerator.scaler.state_dict() if accelerator.scaler else None,
            hashes=task.hashes,
        )
        save_state(out, now.step, plain, meta, state)

    drawing, dearest = 0.0, 1.0  # seconds that pictures took, all and the dearest

    def draw() -> None:
        nonlocal drawing, dearest
        start = time.perf_counter()
        write_curves(now.log, task.score, out / "curves.png")
        if task.samples is not None:
            (out / "samples").mkdir(exist_ok=True)
            file = out / "samples" / f"step_{now.step:06d}.png"
            write_samples(kept, task.samples, file, window=task.window, overlapping=task.overlapping)
        took = time.perf_counter() - start
        drawing, dearest = drawing + took, max(dearest, took)

    with interruptible(processes) as asked_to_stop:
        while now.step < end and not over:
            set_seed(
                int(np.random.SeedSequence([config.seed, now.step, accelerator.process_index]).generate_state(1)[0])
            )
            model.train()
            if task.freeze:
                encoder.eval()
            if config.freeze_batchnorm:
                for module in model.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
            # Where time is what runs out, the schedule runs with it.
            done = max(now.step, total * now.seconds / config.budget_seconds) if config.budget_seconds else now.step
            scale = (now.step + 1) / warmup if now.step < warmup else factor(done)
            lr = config.lr * scale
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            for part in range(config.accumulate):
                batch = send_to_device(next(batches), accelerator.device, non_blocking=True)
                step_forward(batch, part == config.accumulate - 1)
            if config.clip:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            optimiser.zero_grad()
            if average:
                average.update_parameters(plain)
            now.step, now.count = now.step + 1, now.count + 1
            over = read_clock()
            if config.budget_seconds:  # the steps that the time will do for
                bar.total = min(end, max(now.step, round(now.step * config.budget_seconds / now.seconds)))
                if now.step == TIMED and progress and is_main:
                    few = f"; fewer than {FEW} teach little: give it more time, or a smaller size or batch_size"
                    said = f"{config.budget_seconds:g} seconds will do for about {bar.total} steps"
                    bar.write(said + few * (bar.total < FEW))
            bar.update()
            last = over or now.step == end
            validates = last or now.step % (config.validate_every or per_epoch) == 0
            stopping = asked_to_stop()
            saves = last or stopping or now.step % (config.save_every or per_epoch) == 0
            if validates or saves or now.step % patience == 0:
                read_losses()
            if validates:
                row = dict(epoch=now.step / per_epoch, step=now.step, loss=now.loss / now.count, lr=lr)
                with accelerator.autocast():  # all processes do the same, as SyncBatchNorm waits for them
                    renew_statistics(kept, task, config, now.count)
                if is_main and task.validate is not None:
                    row |= task.validate(kept)
                now.log.append(dict(row, seconds=now.seconds))
                now.loss, now.count = 0.0, 0
                if is_main:
                    if config.choose == "last" or best_row(now.log, task.score) is now.log[-1]:
                        save_checkpoint(out / "model.safetensors", task.part(kept), dict(meta, metrics=now.log[-1]))
                    if config.keep == "all":
                        (out / "kept").mkdir(exist_ok=True)
                        file = out / "kept" / f"step_{now.step:08d}.safetensors"
                        save_checkpoint(file, task.part(kept), dict(meta, metrics=now.log[-1]), dtype=torch.float16)
                    write_file(out / "log.json", to_json(now.log).encode())
                    write_file(out / "log.csv", pd.DataFrame(now.log).to_csv(index=False).encode())
                    if progress and (last or drawing + dearest < PICTURES * now.seconds):
                        draw()
                    bar.write(", ".join(f"{k} {v:.4g}" for k, v in now.log[-1].items())) if progress else None
                over = over or exhausted()
            if is_main and (saves or over):
                save()
            if stopping and not (last or over):
                bar.close()
                raise KeyboardInterrupt
    bar.close()
    accelerator.wait_for_everyone()
    if progress and now.log:
        row = now.log[-1] if config.choose == "last" else best_row(now.log, task.score)
        found = f"{task.score} {row[task.score]:.4g}" if task.score in row else f"loss {row['loss']:.4g}"
        rest = "" if over or now.step == total else f"; {total - now.step} steps are left for resume=true"
        where = out / "model.safetensors"
        accelerator.print(f"{config.choose} weights: {found} at step {row['step']} of {now.step}, in {where}{rest}")
    return now.log


def score(row: dict, name: str) -> float:
    """A row's score; one that is undefined is less than any other."""
    value = row.get(name, math.nan)
    return -math.inf if math.isnan(value) else value


def best_row(log: list[dict], name: str) -> dict:
    """The last of the rows with the best score. It may be undefined, and is no best one then unless all are."""
    return log[max(range(len(log)), key=lambda i: (score(log[i], name), i))]


def renew_statistics(model: nn.Module, task: Task, config: Recipe, steps: int) -> int:
    """Gives BatchNorm the mean and variance of training images under the present weights, in the place of running ones,
    which lag behind weights that move fast.

    The images are seen as in validation, not augmented. Training goes on as it would have: it never uses running
    statistics. A model without BatchNorm stays as it is, at no cost.

    Args:
        steps: since the last time, which bound the cost: as many images as a sixth of them takes, at least a batch.
    Returns: the number of images.
    """
    if config.freeze_batchnorm or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return 0
    count = max(config.batch_size, config.batch_size * steps // 6)
    count = min(len(task.data), config.batchnorm_images, count)
    if not count:
        return 0
    passes = max(1, count // config.batch_size)
    size = count // passes  # of each pass alike, as update_bn weighs them alike
    device, chosen = next(model.parameters()).device, typical_images(task.data, passes * size, config.seed)

    def images() -> Iterator[Tensor]:
        part = Subset(task.data, chosen)
        for batch in DataLoader(part, size, num_workers=config.num_workers):
            image = batch["image"].to(device)
            image = normalise(image if task.as_validated is None else task.as_validated(image))
            yield image.contiguous(memory_format=torch.channels_last)

    # The network that is validated drops no branch and no unit, and few images would feel every one that is.
    dropping = {m: m.p for m in model.modules() if isinstance(m, (DropPath, nn.modules.dropout._DropoutNd))}
    for module in dropping:
        module.p = 0.0
    try:
        with set_aside(model) if task.freeze else nullcontext():
            update_bn(images(), model)
    finally:
        for module, p in dropping.items():
            module.p = p
    return passes * size


def encoder_of(model: nn.Module) -> tuple[nn.Module, nn.Module, str]:
    """The module that holds a network's encoder, the encoder, and its name there. Raises ValueError for no encoder."""
    for owner in (model, getattr(model, "net", model)):  # MONAI's are in a shell
        for name in ("encoder", "swinViT"):
            if isinstance(found := getattr(owner, name, None), nn.Module):
                return owner, found, name
    raise ValueError("expected a network with an encoder of its own: rwkv_unet_..., lite0_unet or swin_unetr")


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Within, the encoder is in eval mode and works as ever, but is none of the model's modules: what changes the modes
    and statistics of those leaves it as it is."""
    owner, encoder, name = encoder_of(model)
    encoder.eval()
    parts = owner._modules
    owner._modules = {key: part for key, part in parts.items() if key != name}
    owner.__dict__[name] = encoder
    try:
        yield
    finally:
        del owner.__dict__[name]
        owner._modules = parts


def typical_images(data: Dataset, count: int, seed: int) -> list[int]:
    """Which `count` images stand for all: of 500 draws that with the mean and spread of colours nearest to those of 128
    images, since few images drawn once are brighter or darker than the rest. The same ones for the same seed."""
    rng = np.random.default_rng(seed)
    pool = rng.permutation(len(data))[: max(128, count)]
    if count == len(pool):
        return pool.tolist()
    # Mean and mean square of each channel of each image: their means over images give those over all pixels.
    images = (data[i]["image"].flatten(1) for i in pool.tolist())
    colours = torch.stack([torch.cat([x.mean(1), x.square().mean(1)]) for x in images]).double().numpy()
    colours = (colours - colours.mean(0)) / (colours.std(0) + 1e-9)
    draws = [rng.permutation(len(pool))[:count] for _ in range(500)]
    return pool[min(draws, key=lambda draw: float(np.square(colours[draw].mean(0)).sum()))].tolist()


@contextmanager
def named_errors(config: Recipe, image: Tensor) -> Iterator[None]:
    """PyTorch's errors that have their cause in a recipe, in the recipe's words."""
    try:
        yield
    except Exception as error:
        if str(error).startswith("Expected more than 1 value per channel"):
            raise ValueError(
                f"batch_size: BatchNorm needs more than one value a channel, and a pass has {len(image)} image of "
                f"{image.shape[-1]} pixels, whose deepest map is of one; take two images a pass, a larger size or "
                "freeze_batchnorm=true"
            ) from error
        if config.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"compile: PyTorch could not compile the model ({first}); on a CPU it needs a C++ compiler such as "
                "g++; compile=false trains without"
            ) from error
        raise


def initial_model(config: TrainConfig | FormulaConfig, accelerator: Accelerator) -> tuple[nn.Module, dict]:
    """A recipe's network, with the weights of ``pretrained`` where that is given, whose report is printed; and the
    overrides that it is built by. Raises: as `load_encoder`, the message beginning with ``pretrained``."""
    overrides = dict(config.overrides, num_classes=config.num_classes)
    if config.in_channels != 3:
        overrides["in_channels"] = config.in_channels
    model = create_model(config.model, **overrides)
    if config.pretrained:
        try:
            report = load_encoder(model, config.pretrained, config.overrides.get("variant"))
        except (ValueError, TypeError, OSError, ImportError) as error:
            message = str(error).removeprefix("path_or_state_dict: ")
            raise type(error)(f"pretrained: {message}; pretrained=null starts from random weights") from error
        if report.variant:
            overrides["variant"] = report.variant
        accelerator.print(f"pretrained={config.pretrained}: {report}")
        new = set(report.missing)
    else:
        new = set()
    for name in ("freeze", "encoder_lr"):
        if getattr(config, name, None):
            try:
                inside = set(encoder_of(model)[1].parameters())
            except ValueError as error:
                raise ValueError(f"{name}: {error}, got {config.model!r}") from None
            random = [key for key, p in model.named_parameters() if p in inside and key in new]
            if name == "freeze" and random:
                raise ValueError(
                    f"freeze: expected weights for all of the encoder, {config.pretrained!r} has none for "
                    f"{', '.join(random)}, which would stay random; take encoder_lr instead"
                )
    return model, overrides


def open_split(config: TrainConfig, split: str) -> SegmentationData | FileData:
    """A split of a recipe's data as the recipe has it. Errors are those of `load_data`."""
    return open_data(
        config.data,
        split,
        size=config.size,
        resize=config.resize,
        column=config.split,
        classes=config.num_classes + 1 if config.overlapping else max(2, config.num_classes),
        in_channels=config.in_channels,
        ignore_index=config.ignore_index,
        overlapping=config.overlapping,
        in_memory=None if config.data_on == "auto" else config.data_on != "files",
    )


def share(data: SegmentationData | FileData, labels: float, seed: int) -> SegmentationData | FileData:
    """A share of the items, at least one, in their order: of one seed's shares the smaller lie within the larger."""
    if labels == 1:
        return data
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[: max(1, round(labels * len(data)))]))


def _hash_name(split: str, data: SegmentationData | FileData) -> str:
    """What a split's hash is kept as: those of pixels and of files are not to be compared."""
    return f"{split} in files" if isinstance(data, FileData) else split


def train(
    config: TrainConfig,
    out: str | Path,
    resume: bool | str = False,
    stop_after: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> list[dict]:
    """Trains a model for segmentation on the split ``train``.

    Writes into the folder `out`: ``model.safetensors`` (for `load_checkpoint`: the weights that are best on the split
    of validation, or the last ones, as ``config.choose`` says), ``checkpoints/`` (the last two states, to resume from),
    ``log.json`` and ``log.csv`` (what is returned, undefined scores as null), ``config.json``, and with ``config.keep``
    "all" ``kept/`` (the weights of each validation). Ctrl-C ends a run after the step that it is in, with a checkpoint.

    Args:
        resume: True goes on with the run that `out` holds, if it does: the result is the same as without the
            interruption, to the bit on a CPU where no ``budget_seconds`` ties the schedule to the clock. "previous"
            goes on from the checkpoint before the last one, where that is damaged. The data may lie elsewhere than
            before, but must be the same; ``num_workers`` and ``save_every`` may differ, and with the schedule
            "constant" also ``epochs``, ``steps`` and ``budget_seconds``: so it can be extended.
        stop_after: stop once this many of the run's epochs are done, to be resumed later.
        progress: a bar, what is worth saying, and pictures: ``curves.png``, and ``samples/step_STEP.png`` with eight
            validation images, the truth and the prediction.
        command: the line that repeats the run, for ``provenance.json``; None: there is no such file.

    Returns:
        One dict for each validation: epoch, step, loss (mean since the one before), lr (of the step), dice (mean over
        images and classes, where there is a validation split), with several classes dice_1 and so on, seconds.

    Raises:
        FileExistsError: `out` holds a run already and `resume` is False, or another run writes into it.
        ValueError: `resume` with another config or other data than the run's, a damaged checkpoint, bad data (see
            `load_data`), a size that the model cannot halve.
        FloatingPointError: the loss is not finite; the message names the items. OSError: a file cannot be written.
    """
    out = Path(out).expanduser()
    with start(config, out, resume, progress, command) as accelerator:
        held = share(open_split(config, "train"), config.labels, config.seed)
        data = held if config.crop is None else Patches(held, config.crop, config.seed)
        model, overrides = initial_model(config, accelerator)
        validate, hashes = None, {_hash_name("train", held): held.sha256()}
        if config.validation is not None:
            try:
                validation = open_split(config, config.validation)
            except ValueError as error:
                if not str(error).startswith("split: "):
                    raise
                raise ValueError(f"validation: {error}; without such images: validation=null choose=last") from error
            hashes[_hash_name("validation", validation)] = validation.sha256()

            def validate(model: nn.Module) -> dict[str, float]:
                images = validation.parts(config.batch_size) if isinstance(validation, FileData) else validation
                table = evaluate(
                    model,
                    images,
                    protocol=config.protocol,
                    window=config.crop,
                    batch_size=config.batch_size,
                    ignore_index=config.ignore_index,
                    overlapping=config.overlapping,
                    hd95=False,
                )
                pixels = 0 if config.size is None else math.prod(pair(config.size))
                if progress and (said := all_or_nothing(table, pixels)):
                    accelerator.print(f"warning: validation: {said}")
                by_class = table.groupby("class")["dice"].mean()
                each = {f"dice_{number}": float(dice) for number, dice in by_class.items()} if len(by_class) > 1 else {}
                return {"dice": float(table["dice"].mean())} | each

        augment = make_augmentation(config.augment, config.trained_at[1], config.in_channels)
        meta: dict[str, Any] = dict(model=config.model, overrides=overrides, size=config.size)
        meta["data"] = Path(config.data).name
        meta |= {name: getattr(config, name) for name in SEEN if getattr(config, name) != ADDED[name]}
        meta |= {"class_names": names} if (names := class_names(config.data)) else {}
        loss = DeepSupervision(
            make_loss(
                config.loss,
                config.num_classes,
                class_weights=config.class_weights,
                ignore_index=config.ignore_index,
                overlapping=config.overlapping,
            )
        )
        task = Task(model, data, "mask", loss, augment, validate, "dice", meta, hashes)
        task.freeze, task.encoder_lr = config.freeze is not None, config.encoder_lr
        task.samples = None if config.validation is None else validation
        task.window, task.overlapping = config.crop, config.overlapping
        return fit(task, config, out, accelerator, resume=resume, stop_after=stop_after, progress=progress)
