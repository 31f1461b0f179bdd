"""Pretrain an encoder by its teacher for some seconds, and keep what is small enough to be brought back.

    python experiments/gpu/teacher.py --seconds 400 --out DIR/teacher.json --weights DIR/teacher_t.safetensors

Pictures are ISIC 2017 and the photographs that lie in brought/ (prepare.py), where they do, and formula images. The
weights are the encoder's in float16, for ``pretrained=FILE``; the JSON file has the log and what was seen.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from rwkvlib.engine.config import load_config
from rwkvlib.engine.teacher import imitate
from rwkvlib.provenance import provenance, write_result

RECIPE = Path(__file__).parents[2] / "configs/pretrain_teacher.yaml"
SHARES = {"isic2017.zip": 3, "photographs": 3}  # of what lies in brought/; formula images have 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True, help="of training; imports and pictures take more")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--brought", type=Path, default=Path(__file__).with_name("brought"))
    parser.add_argument("settings", nargs="*", metavar="key=value", help="fields of the recipe")
    args = parser.parse_args()
    sources = {str(args.brought / name): share for name, share in SHARES.items() if (args.brought / name).exists()}
    data = ", ".join(f"{name}: {share}" for name, share in {**sources, "synthetic-formula": 2}.items())
    fixed = [f"data={{{data}}}", f"budget_seconds={args.seconds}", "keep=all", "save_every=1000000"]
    config = load_config(RECIPE, [*fixed, *args.settings])
    with tempfile.TemporaryDirectory() as folder:
        log = imitate(config, folder, progress=False)
        shutil.copyfile(max(Path(folder, "kept").iterdir()), args.weights)
    shown = {Path(name).name: share for name, share in config.data.items()}
    settings = {"size": config.size, "batch_size": config.batch_size, "lr": config.lr, "model": config.model}
    result = dict(data=shown, **settings, log=log, weights=args.weights.name)
    write_result(args.out, result | dict(provenance=provenance(config.seed, "python experiments/gpu/teacher.py")))


if __name__ == "__main__":
    main()
