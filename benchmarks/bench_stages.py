"""Where a network's time goes: forward and backward of each stage, by itself, on the input that it has in the network.

On a CPU, in training mode, channels last as `train` has it, float32. Times are medians, interleaved: one round after
another, all stages of all networks in each, so that a disturbance meets all of them. Beside the stages stands the whole
step (forward, loss, backward); what the stages leave of it is the rest: joining, enlarging, the loss. The whole meets
colder caches than a stage does, so that the rest can be negative. MONAI's networks have no such stages, and are timed
whole. Prints a table, and writes it where ``--out`` says.

``--cpu-time`` takes the process's own seconds in the place of the clock's: for one thread on a machine that has other
work.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn as nn
from common import interleaved
from torch import Tensor

from rwkvlib import create_model
from rwkvlib.analysis import count_parameters
from rwkvlib.engine.losses import DeepSupervision, make_loss
from rwkvlib.models import RWKVUNet
from rwkvlib.provenance import provenance, repeatable, write_result

MODELS = ["rwkv_unet_t", "unet"]
STAGES = {"stem": "encoder.stage0", **{f"stage {i}": f"encoder.stage{i}" for i in range(1, 5)}, "CCM": "ccm"}
STAGES |= {f"decoder {i}": f"decoder{i}" for i in range(1, 5)} | {"head": "final_conv"}
WHOLE = "whole step"
WIDTHS = {"forward": 12, "backward": 13}  # of the table's columns


def tensors(x: Tensor | list[Tensor]) -> list[Tensor]:
    """The CCM takes and gives a list of maps."""
    return [x] if isinstance(x, Tensor) else list(x)


def inputs_of(model: RWKVUNet, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
    """What each stage of a model is given for the images x."""
    found, hooks = {}, []
    for stage, name in STAGES.items():
        if (module := getattr(model, name, None) if "." not in name else model.get_submodule(name)) is not None:
            hooks.append(module.register_forward_pre_hook(lambda _, args, stage=stage: found.update({stage: args[0]})))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def both_ways(stage: nn.Module, x: Tensor | list[Tensor], needs_input: bool) -> dict[str, Callable[[], None]]:
    """Forward alone, and forward with backward, of one stage. The stem's input needs no gradient."""
    leaves = [t.detach().requires_grad_(needs_input) for t in tensors(x)]
    given = leaves[0] if isinstance(x, Tensor) else leaves
    with torch.no_grad():
        ones = [torch.ones_like(y) for y in tensors(stage(given))]
    wanted = [p for p in [*stage.parameters(), *leaves] if p.requires_grad]

    def forward() -> None:
        stage(given)

    def forward_backward() -> None:
        torch.autograd.grad(tensors(stage(given)), wanted, ones)

    return {"forward": forward, "both": forward_backward}


def whole_step(model: nn.Module, x: Tensor, mask: Tensor) -> Callable[[], None]:
    loss = DeepSupervision(make_loss("binary", 1))

    def run() -> None:
        model.zero_grad()
        loss(model(x), mask).backward()

    return run


def measure(
    models: dict[str, nn.Module], batch: int, size: int, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[dict]]:
    """By model one row for each stage: seconds forward, backward and both, and their share of the whole step."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    mask = (torch.rand(batch, 1, size, size) > 0.8).float()
    contenders = {}
    for name, model in models.items():
        model.train().to(memory_format=torch.channels_last)
        contenders[name, WHOLE, "both"] = whole_step(model, x, mask)
        for stage, given in (inputs_of(model, x) if isinstance(model, RWKVUNet) else {}).items():
            for way, run in both_ways(model.get_submodule(STAGES[stage]), given, stage != "stem").items():
                contenders[name, stage, way] = run
    seconds = interleaved(contenders, repeats, clock)
    table = {}
    for name in models:
        rows = []
        for stage in STAGES:
            if (name, stage, "both") in seconds:
                forward, both = (seconds[name, stage, way] for way in ("forward", "both"))
                rows.append(dict(stage=stage, forward=forward, backward=both - forward, seconds=both))
        whole, parts = seconds[name, WHOLE, "both"], sum(row["seconds"] for row in rows)
        if rows:
            rows.append(dict(stage="rest", seconds=whole - parts))
        rows.append(dict(stage=WHOLE, seconds=whole))
        table[name] = [row | dict(share=row["seconds"] / whole) for row in rows]
    return table


def show(table: dict[str, list[dict]], models: dict[str, nn.Module]) -> None:
    for name, rows in table.items():
        print(f"\n{name}, {count_parameters(models[name]):,} parameters")
        print(f"{'':12}{'forward ms':>12}{'backward ms':>13}{'both ms':>10}{'share':>9}")
        for row in rows:
            ways = "".join(f"{1000 * row[way]:{n}.2f}" if way in row else " " * n for way, n in WIDTHS.items())
            print(f"{row['stage']:12}{ways}{1000 * row['seconds']:10.2f}{100 * row['share']:8.1f}%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="names of create_model, with overrides as NAME={JSON}"
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cpu-time", action="store_true", help="the process's seconds, not the clock's")
    parser.add_argument("--out", help="JSON file of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    models = {}
    for given in args.models:
        name, _, overrides = given.partition("=")
        models[given] = create_model(name, **json.loads(overrides or "{}"))
    clock = time.process_time if args.cpu_time else time.perf_counter
    table = measure(models, args.batch, args.size, args.repeats, clock)
    show(table, models)
    if args.out:
        origin = provenance(0, f"python benchmarks/bench_stages.py {repeatable(sys.argv[1:])}".strip())
        about = {name: getattr(args, name) for name in ("repeats", "threads", "batch", "size", "cpu_time")}
        result = dict(unit="seconds, median") | about | dict(rows=table, provenance=origin)
        print("written:", write_result(args.out, result))


if __name__ == "__main__":
    main()
