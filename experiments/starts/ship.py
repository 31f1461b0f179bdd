"""Take a run's weights into the library: float16 in rwkvlib/weights/, its log and origin in results/.

    python experiments/starts/ship.py runs/starts/t_teacher rwkv_encoder_t_teacher
    python experiments/starts/ship.py runs/small/p rwkv_unet_p_synthetic --results results/training

A network that was trained on a synthetic set is scored on its test images, with the weights as they are shipped.

Only weights whose every training image is generated, CC0 or CC-BY may be shipped; rwkvlib/weights/README.md says which.
"""

import argparse
import hashlib
import json
from pathlib import Path

from safetensors.torch import save

from rwkvlib.data import load_data
from rwkvlib.engine.checkpoint import load_checkpoint
from rwkvlib.engine.config import base_names
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.files import write_file
from rwkvlib.models.official import read_weights
from rwkvlib.provenance import provenance, write_result

ROOT = Path(__file__).resolve().parents[2]


def test_scores(file: Path, data: str, size: int) -> dict:
    """The scores of each test image of a synthetic set, and their means."""
    cases = evaluate(load_checkpoint(file)[0], load_data(data, "test", size=size))
    scores = ["dice", "iou", "hd95"]
    images = cases[["name", *scores]].round(5).to_dict("records")
    return dict(mean=cases[scores].mean().to_dict(), hd95_undefined=int(cases["hd95"].isna().sum()), images=images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished `rwkvlib pretrain`")
    parser.add_argument("name", help="of the weights, without a suffix")
    parser.add_argument("--weights", type=Path, default=ROOT / "rwkvlib/weights")
    parser.add_argument("--results", type=Path, default=ROOT / "results/starts")
    args = parser.parse_args()
    state, metadata = read_weights(args.run / "model.safetensors")
    meta = json.loads(metadata["rwkvlib"])
    config, log, origin = (
        json.loads((args.run / f"{name}.json").read_text(encoding="utf8")) for name in ("config", "log", "provenance")
    )
    file = args.weights / f"{args.name}.safetensors"
    names, training = base_names("data", config["data"]), origin["provenance"]
    pretraining = isinstance(names, dict)
    for source, name in zip(config["data"], names, strict=True) if pretraining else ():
        training["command"] = training["command"].replace(source, name)  # where the pictures lay is nobody's matter
    kept = {key: meta[key] for key in ("model", "overrides", "size")} | dict(trained_on=names)
    if not pretraining:
        kept |= {key: meta["metrics"][key] for key in ("step", "dice")}
    half = {key: x.half().contiguous() if x.is_floating_point() else x for key, x in state.items()}
    write_file(file, save(half, {"rwkvlib": json.dumps(kept)}))
    result = dict(weights=args.name, sha256=hashlib.sha256(file.read_bytes()).hexdigest(), bytes=file.stat().st_size)
    result |= dict(numbers=sum(x.numel() for x in half.values()), config=config | {"data": names}, log=log)
    if not pretraining:
        result |= test_scores(file, names, config["size"])
    command = f"python experiments/starts/ship.py {args.run.name} {args.name}"
    result |= dict(training=training, provenance=provenance(config["seed"], command))
    args.results.mkdir(parents=True, exist_ok=True)
    write_result(args.results / f"{args.name}.json", result)
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
