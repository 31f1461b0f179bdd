"""What can a network know about a cue that lies far away? Side accuracy against the distance.

Trains each network on `synthetic_long_range` for the same number of steps and the same images, one run for each
distance and seed. Training and test images come in pairs that differ in the cue alone; only the runs of `AUGMENTED`
change the training images. Writes
results/long_range/distances.json, where the report looks, after every run and goes on with what that file lacks (with
--out another file of that folder, for other networks). `losses` of a run are means of ten steps each.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.networks.nets import UNet
from torch import nn

from rwkvlib import create_model
from rwkvlib.analysis import count_parameters, receptive_field_radius
from rwkvlib.data import right_side, synthetic_long_range
from rwkvlib.data.augment import make_augmentation
from rwkvlib.data.pixels import normalise
from rwkvlib.engine.losses import make_loss
from rwkvlib.provenance import provenance, write_result

OUT = Path(__file__).parents[1] / "results/long_range/distances.json"
TEST_SEED = 2 * 10**6  # training images have the seeds from 0


def unet(levels: int) -> nn.Module:
    """A shallow U-Net. BatchNorm, as InstanceNorm's statistics would tell every pixel of the whole image."""
    channels = [16 * 2**i for i in range(levels)]
    return UNet(2, 3, 1, channels, [2] * (levels - 1), num_res_units=2, norm="batch")


def rwkv_unet(squeeze_excite: bool = True, **overrides) -> nn.Module:
    """RWKV-UNet-T. The stem's squeeze-excite averages over the image, so that it is a global path of its own."""
    model = create_model("rwkv_unet_t", **overrides)
    if not squeeze_excite:
        model.encoder.stage0[0].se = nn.Identity()
    return model


MODELS = {
    "U-Net, 3 levels": lambda: unet(3),
    "U-Net, 4 levels": lambda: unet(4),
    "RWKV-UNet-T": rwkv_unet,
    "RWKV-UNet-T, no attention": lambda: rwkv_unet(attention=False),
    "RWKV-UNet-T, no attention, no squeeze-excite": lambda: rwkv_unet(False, attention=False),
    "RWKV-UNet-T, no CCM": lambda: rwkv_unet(ccm=False),
    "RWKV-UNet-T, no Q-Shift": lambda: rwkv_unet(q_shift=False),
    "RWKV-UNet-T, decay 0": lambda: rwkv_unet(learn_decay=False),
    "RWKV-UNet-T, published operator": lambda: rwkv_unet(variant="published"),
    "RWKV-UNet-T, decoder 3": lambda: rwkv_unet(decoder_kernel=3),
    "RWKV-UNet-T, decoder 5": lambda: rwkv_unet(decoder_kernel=5),
    "RWKV-UNet-T, decoder 7": lambda: rwkv_unet(decoder_kernel=7),
    "RWKV-UNet-T, no attention, decoder 3": lambda: rwkv_unet(attention=False, decoder_kernel=3),
}
FIRST = list(MODELS)[1:5]  # whose range reaches the cue; the later ones are ablations
AUGMENTED = {  # the same network; names of `rwkvlib.data.augment`
    "RWKV-UNet-T, weak augmentation": "paper_synapse",
    "RWKV-UNet-T, strong augmentation": "strong",
}
MODELS |= dict.fromkeys(AUGMENTED, rwkv_unet)


def pairs(seeds: range, size: int, distance: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (2N, 3, H, W) in [0, 1] and masks (2N, 1, H, W): first as drawn, then the same with the other cue."""
    drawn = [synthetic_long_range(s, size, distance, flip=flip) for flip in (False, True) for s in seeds]
    images, masks = (np.stack(x) for x in zip(*drawn, strict=True))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return x, torch.from_numpy(masks)[:, None].float()


def train(
    model: nn.Module, distance: int, args: argparse.Namespace, device: str, augmentation: str = "none"
) -> list[float]:
    """Every image is new: no augmentation is needed, and nothing can be learned by heart. Returns the losses.

    With whole pairs in a batch, what a network that ignores the cue could gain by guessing cancels.
    """
    model.train().to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, total_steps=args.steps)
    loss_function, losses = make_loss("binary", 1), []
    augment = make_augmentation(augmentation, args.size)
    for step in range(args.steps):
        seeds = range(step * args.batch // 2, (step + 1) * args.batch // 2)
        image, mask = (x.to(device) for x in pairs(seeds, args.size, distance))
        if augment is not None:
            image, mask = augment(image, mask)
        loss = loss_function(model(normalise(image)), mask)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def interval(of_pairs: np.ndarray) -> list[float]:
    """The 95 % bootstrap interval of the mean. Pairs are drawn, as their two images are not independent."""
    rng = np.random.default_rng(0)
    return np.quantile(rng.choice(of_pairs, (2000, len(of_pairs))).mean(1), [0.025, 0.975]).tolist()


@torch.inference_mode()
def score(model: nn.Module, distance: int, args: argparse.Namespace, device: str) -> dict:
    """Side accuracy and Dice on the test images, and how far the logits on the disc move with the cue alone."""
    model.eval()
    image, mask = pairs(range(TEST_SEED, TEST_SEED + args.test // 2), args.size, distance)
    logits = torch.cat([model(normalise(part.to(device))).cpu() for part in image.split(args.batch)])
    half = len(image) // 2
    other = mask.roll(half, 0)
    right = right_side(logits[:, 0].numpy(), mask[:, 0].numpy(), other[:, 0].numpy())
    dice = compute_dice((logits > 0).float(), mask).numpy()[:, 0]
    result = {"largest_change_by_cue": ((logits - logits.roll(half, 0)).abs() * (mask + other)).max().item()}
    for name, values in (("side_accuracy", right), ("dice", dice)):
        of_pairs = values.reshape(2, half).mean(0)
        result |= {name: of_pairs.mean(), f"{name}_interval": interval(of_pairs)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distances", type=int, nargs="+", default=[16, 24, 32])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=FIRST)
    parser.add_argument("--steps", type=int, default=350, help="of training, for every network")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch, even: half as many pairs")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--test", type=int, default=200, help="test images, even: half as many pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args()
    if args.batch < 2 or args.batch % 2 or args.test < 2 or args.test % 2:
        parser.error(f"--batch and --test: expected even numbers of images, got {args.batch} and {args.test}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = {key: getattr(args, key) for key in ("steps", "batch", "size", "test", "lr")}
    result = {"recipe": recipe, "models": {}, "runs": []}
    if Path(args.out).exists():
        result = json.loads(Path(args.out).read_text())
        if result["recipe"] != recipe:
            parser.error(f"--out: {args.out} holds runs of another recipe, {result['recipe']}; choose another file")
    # Taken now: the code that runs is the one that was there at the start.
    result["provenance"] = provenance(
        args.seeds[0], f"python experiments/long_range.py {shlex.join(sys.argv[1:])}".strip()
    )
    commit = result["provenance"]["commit"]
    for name in args.models:
        if name not in result["models"]:
            model = MODELS[name]().eval()
            radius = receptive_field_radius(model, 256)
            result["models"][name] = {
                "parameters": count_parameters(model),
                "receptive_field_radius": radius if np.isfinite(radius) else None,  # None: the whole image
            }
    done = {(run["model"], run["distance"], run["seed"]) for run in result["runs"]}
    for seed in args.seeds:
        for distance in args.distances:
            for name in args.models:
                if (name, distance, seed) in done:
                    continue
                torch.manual_seed(seed)
                model = MODELS[name]()
                start = time.perf_counter()
                losses = train(model, distance, args, device, AUGMENTED.get(name, "none"))
                run = {
                    "model": name,
                    "distance": distance,
                    "seed": seed,
                    "commit": commit,
                    **score(model, distance, args, device),
                }
                run |= {"loss_at_end": np.mean(losses[-20:]), "seconds": time.perf_counter() - start}
                run["losses"] = [round(np.mean(losses[i : i + 10]), 4) for i in range(0, len(losses), 10)]
                radius = result["models"][name]["receptive_field_radius"]
                run["sees_cue"] = radius is None or distance <= radius
                if not run["sees_cue"]:
                    low, high = run["side_accuracy_interval"]
                    assert run["largest_change_by_cue"] == 0, f"{run}: the cue is beyond the receptive field"
                    assert run["side_accuracy"] == 0.5 and low <= 0.5 <= high, run
                result["runs"].append(run)
                write_result(args.out, result)
                low, high = run["side_accuracy_interval"]
                print(
                    f"{name}, distance {distance}, seed {seed}: side accuracy {run['side_accuracy']:.3f} "
                    f"({low:.3f} to {high:.3f}), Dice {run['dice']:.3f}, {run['seconds']:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
