"""CPU cost of whole models: inference at 256 px and a training step at 128 px, what the operator adds, what lowers it.

All of one table is measured in one run, interleaved; only ratios within it are to be trusted. Two threads.
Writes results/bench/models_cpu.json.
"""

import argparse
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch
from common import interleaved
from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus, SwinUNETR, UNet

from rwkvlib import create_model
from rwkvlib.analysis import count_parameters
from rwkvlib.engine.losses import make_loss
from rwkvlib.models.folding import fold_batchnorm
from rwkvlib.provenance import provenance, write_result

CHANNELS = (32, 64, 128, 256, 512)


def without_operator():
    """The model with the operator replaced by the identity on v."""
    return patch("rwkvlib.layers.mixing.bi_wkv", lambda w, u, k, v, **options: v)


def baselines() -> dict[str, torch.nn.Module]:
    """MONAI's networks for a three-channel 2-D image and a binary mask."""
    strides = (2,) * (len(CHANNELS) - 1)
    return {
        "U-Net (MONAI)": UNet(2, 3, 1, CHANNELS, strides, num_res_units=2),
        "AttentionUnet (MONAI)": AttentionUnet(2, 3, 1, CHANNELS, strides),
        "SwinUNETR (MONAI)": SwinUNETR(in_channels=3, out_channels=1, feature_size=24, spatial_dims=2),
        "U-Net++ (MONAI)": BasicUNetPlusPlus(spatial_dims=2, in_channels=3, out_channels=1),
    }


def first(output):
    """U-Net++ returns a list with one map."""
    return output[0] if isinstance(output, (list, tuple)) else output


def inference(repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds for one 256 x 256 image, by contender; and parameters by model."""
    x = torch.randn(1, 3, 256, 256)
    last = torch.channels_last
    contenders, parameters = {}, {}

    def add(name, model, x, free=False):
        def run():
            with torch.inference_mode():
                if free:
                    with without_operator():
                        model(x)
                else:
                    model(x)

        contenders[name] = run

    for size in "tsb":
        name = f"RWKV-UNet-{size.upper()}"
        model = create_model(f"rwkv_unet_{size}").eval()
        parameters[name] = count_parameters(model)
        add(name, model, x)
        add(f"{name}, operator free", model, x, free=True)
        model_last = create_model(f"rwkv_unet_{size}").eval().to(memory_format=last)
        add(f"{name}, channels_last", model_last, x.to(memory_format=last))
        add(f"{name}, channels_last, operator free", model_last, x.to(memory_format=last), free=True)
        folded = fold_batchnorm(create_model(f"rwkv_unet_{size}").eval()).to(memory_format=last)
        add(f"{name}, channels_last, BatchNorm folded", folded, x.to(memory_format=last))
    for name, model in baselines().items():
        parameters[name] = count_parameters(model)
        add(name, model.eval(), x)
    return interleaved(contenders, repeats), parameters


def training(repeats: int) -> dict[str, float]:
    """Seconds for a forward and backward pass of 16 images of 128 x 128."""
    x, mask, loss = torch.randn(16, 3, 128, 128), (torch.rand(16, 1, 128, 128) > 0.8).float(), make_loss("binary", 1)
    contenders = {}

    def add(name, model, x, free=False):
        def run():
            model.zero_grad()
            if free:
                with without_operator():
                    loss(model(x), mask).backward()
            else:
                loss(first(model(x)), mask).backward()

        contenders[name] = run

    for form, label in ((torch.contiguous_format, ""), (torch.channels_last, ", channels_last")):
        model = create_model("rwkv_unet_t").train().to(memory_format=form)
        add(f"RWKV-UNet-T{label}", model, x.to(memory_format=form))
        add(f"RWKV-UNet-T{label}, operator free", model, x.to(memory_format=form), free=True)
    add("RWKV-UNet-T, channels_last, operator as scan", *_scan_model(x))
    add("U-Net (MONAI)", baselines()["U-Net (MONAI)"].train(), x)
    return interleaved(contenders, repeats)


def _scan_model(x):
    model = create_model("rwkv_unet_t", backend="scan").train().to(memory_format=torch.channels_last)
    return model, x.to(memory_format=torch.channels_last)


def show(title: str, seconds: dict[str, float]) -> None:
    base = seconds["U-Net (MONAI)"]
    print(f"\n{title}\n{'':46}{'ms':>8}  {'x U-Net':>8}")
    for name, s in seconds.items():
        print(f"{name:46}{1000 * s:8.0f}  {s / base:8.2f}")


def added(seconds: dict[str, float], name: str) -> float:
    """What the operator adds, as a share of the same model's time without it."""
    return seconds[name] / seconds[f"{name}, operator free"] - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/models_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    start = time.perf_counter()
    infer, parameters = inference(args.repeats)
    show("One 256 x 256 image, inference", infer)
    train = training(max(2, args.repeats // 3))
    show("A training step, 16 images of 128 x 128", train)
    share = {f"inference {size}": added(infer, f"RWKV-UNet-{size}, channels_last") for size in "TSB"}
    share["training T"] = added(train, "RWKV-UNet-T, channels_last")
    print("\nThe operator adds: " + ", ".join(f"{name} {100 * s:.1f} %" for name, s in share.items()))
    result = dict(
        unit="seconds, median",
        repeats=args.repeats,
        inference_256_batch1=infer,
        training_128_batch16=train,
        operator_adds=share,
        parameters=parameters,
        seconds_in_all=time.perf_counter() - start,
        provenance=provenance(0, f"python benchmarks/bench_models.py {' '.join(sys.argv[1:])}".strip()),
    )
    print("written:", write_result(args.out, result))


if __name__ == "__main__":
    main()
