"""Break the project in known ways, one by one, and see which tests notice.

    python tests/mutants.py                  all of them
    python tests/mutants.py --only NAME ...  some
    python tests/mutants.py --list           their names

Each is made in a clone of the last commit, in a folder of its own; the checkout stays as it is. Exits 1 where a mutant
survives, or where its text is no longer found once: then the table below must follow the code.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
NBVAL = "--nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg"


class Mutant(NamedTuple):
    """A text of a file, what it becomes, and the arguments of Python that must fail then."""

    file: str
    old: str
    new: str
    check: str


TRAIN, EVALUATE, COMMANDS = "rwkvlib/engine/train.py", "rwkvlib/engine/evaluate.py", "rwkvlib/commands.py"
MUTANTS = {
    # What a reading of the tests found held by nothing.
    "augmentation never applied": Mutant(
        TRAIN, "if task.augment is not None:", "if False:", "-m pytest tests/engine/test_train.py"
    ),
    "weight decay dropped": Mutant(
        TRAIN, "weight_decay=config.weight_decay", "weight_decay=0.0", "-m pytest tests/engine/test_train.py"
    ),
    "masks resized bilinearly in training": Mutant(
        "rwkvlib/data/dataset.py", "Image.NEAREST", "Image.BILINEAR", "-m pytest tests/data/test_dataset.py"
    ),
    "masks resized bilinearly in prepare": Mutant(
        "data_scripts/prepare.py", "Image.NEAREST", "Image.BILINEAR", "-m pytest tests/data_scripts/test_prepare.py"
    ),
    "training reads another column of splits": Mutant(
        TRAIN, "column=config.split,", 'column="split",', "-m pytest tests/engine/test_train.py"
    ),
    "a sweep scores another column of splits": Mutant(
        "rwkvlib/engine/sweep.py",
        "data = open_split(config, test)",
        'data = open_split(type(config)(**vars(config) | {"split": "split"}), test)',
        "-m pytest tests/engine/test_sweep.py",
    ),
    "decay of the average ignored": Mutant(
        TRAIN, "get_ema_multi_avg_fn(config.ema)", "get_ema_multi_avg_fn(0.999)", "-m pytest tests/engine/test_train.py"
    ),
    "label smoothing ignored": Mutant(
        "rwkvlib/engine/pretrain.py",
        "label_smoothing=config.label_smoothing",
        "label_smoothing=0.0",
        "-m pytest tests/engine/test_pretrain.py",
    ),
    "flips ignored by predict": Mutant(
        COMMANDS,
        "flips=args.flips,\n        with_overlay",
        "flips=False,\n        with_overlay",
        "-m pytest tests/engine/test_predict.py tests/test_commands.py",
    ),
    "window of CT ignored by predict": Mutant(
        COMMANDS, "hu=hu,", "hu=None,", "-m pytest tests/engine/test_predict.py tests/test_commands.py"
    ),
    "native ignored by predict": Mutant(
        COMMANDS,
        "None if args.native or args.window else",
        "None if args.window else",
        "-m pytest tests/engine/test_predict.py tests/test_commands.py",
    ),
    "flips ignored by evaluate": Mutant(
        COMMANDS,
        "flips=args.flips,\n        progress",
        "flips=False,\n        progress",
        "-m pytest tests/engine/test_evaluate.py tests/test_commands.py",
    ),
    "native ignored by evaluate": Mutant(
        COMMANDS,
        "native, out = args.native or has_volumes",
        "native, out = has_volumes",
        "-m pytest tests/engine/test_evaluate.py tests/test_commands.py",
    ),
    "height and width swapped in GLSP": Mutant(
        "rwkvlib/layers/glsp.py",
        "self.ln1(self.att(tokens, shape))",
        "self.ln1(self.att(tokens, shape[::-1]))",
        "-m pytest tests/layers",
    ),
    "DropPath does not scale": Mutant(
        "rwkvlib/layers/mixing.py", "x * keep / (1 - self.p)", "x * keep", "-m pytest tests/layers"
    ),
    "DropPath draws once for all images": Mutant(
        "rwkvlib/layers/mixing.py", "torch.rand(x.shape[0], *", "torch.rand(1, *", "-m pytest tests/layers"
    ),
    "spacing along x and y swapped": Mutant(
        EVALUATE,
        'columns = [f"spacing_{axis}" for axis in axes]',
        'columns = [f"spacing_{axis}" for axis in axes[:-2] + axes[:-3:-1]]',
        "-m pytest tests/engine/test_evaluate.py",
    ),
    "protocol ignored while training": Mutant(
        TRAIN, "protocol=config.protocol", 'protocol="strict"', "-m pytest tests/engine/test_train.py"
    ),
    "protocol ignored by a sweep": Mutant(
        "rwkvlib/engine/sweep.py",
        "protocol=config.protocol",
        'protocol="strict"',
        "-m pytest tests/engine/test_sweep.py",
    ),
    "an undefined score is the best": Mutant(
        TRAIN,
        "return -math.inf if math.isnan(value)",
        "return math.inf if math.isnan(value)",
        "-m pytest tests/engine/test_train.py",
    ),
    "one channel normalised as three": Mutant(
        "rwkvlib/data/pixels.py", "((0.5,), (0.25,))", "((0.485,), (0.229,))", "-m pytest tests/engine tests/data"
    ),
    "resizing without antialiasing": Mutant(
        "rwkvlib/engine/predict.py", "antialias=True", "antialias=False", "-m pytest tests/engine/test_predict.py"
    ),
    "splits dealt in another order": Mutant(
        "data_scripts/splits.py",
        "np.random.default_rng(seed).permutation",
        "np.random.default_rng(seed + 1).permutation",
        "-m pytest tests/data_scripts/test_splits.py",
    ),
    "near copies parted by a split": Mutant(
        "data_scripts/deal.py",
        "together = [(i, j) for i, j, *_ in copies(thumbnails, digests, near)]",
        "together = []",
        "-m pytest tests/data_scripts/test_deal.py",
    ),
    "labels dealt without proportion": Mutant(
        "data_scripts/deal.py",
        "lacks @ (held[group] / kinds.sum(axis=0))",
        "lacks[:, 0]",
        "-m pytest tests/data_scripts/test_deal.py",
    ),
    "a result without its origin": Mutant(
        "results/statistics/coverage.json", '"provenance"', '"origin"', "-m pytest tests/test_provenance.py"
    ),
    # One of each kind.
    "a sign in Spatial Mix": Mutant(
        "rwkvlib/layers/mixing.py",
        "return self.output(torch.sigmoid(r) *",
        "return self.output(torch.sigmoid(-r) *",
        "-m pytest tests/layers tests/models/test_model.py",
    ),
    "a mask dropped": Mutant(
        "rwkvlib/data/dataset.py",
        "images[i], masks[i] = pixels, mask",
        "images[i], masks[i] = pixels, 0",
        "-m pytest tests/data/test_dataset.py",
    ),
    "an output changed in a notebook": Mutant(
        "notebooks/01_scoring.ipynb",
        "dice 0.500, iou 0.333",
        "dice 0.501, iou 0.333",
        f"-m pytest notebooks/01_scoring.ipynb {NBVAL}",
    ),
    "a broken link in a page": Mutant(
        "book/notation.md", "../notebooks/02_unet", "../notebooks/02_unknown", "-m book html"
    ),
}


def killed(name: str, mutant: Mutant, folder: Path) -> str:
    """Makes a mutant in a clone; returns "noticed", "SURVIVED", or what is wrong with the table."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    path = clone / mutant.file
    text = path.read_text(encoding="utf8")
    # In a notebook or a page any place will do.
    if text.count(mutant.old) != 1 and path.suffix not in (".ipynb", ".md"):
        return f"NOT MADE: {mutant.old!r} stands {text.count(mutant.old)} times in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new, 1), encoding="utf8")
    env = os.environ | {"PYTHONPATH": str(clone), "RWKVLIB_STRICT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-x", "-q"] if "pytest" in mutant.check else []
    done = subprocess.run(
        [sys.executable, *mutant.check.split(), *options], cwd=clone, env=env, capture_output=True, text=True
    )
    if "pytest" in mutant.check and done.returncode not in (0, 1):
        return f"NOT RUN: {done.stdout[-500:]}{done.stderr[-500:]}"
    return "noticed" if done.returncode else "SURVIVED"


def main() -> int:
    """Makes the chosen ones; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=MUTANTS, default=list(MUTANTS))
    parser.add_argument("--list", action="store_true", help="print the names")
    args = parser.parse_args()
    if args.list:
        print("\n".join(MUTANTS))
        return 0
    found = {}
    for name in args.only:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found[name] = killed(name, MUTANTS[name], Path(folder))
        print(f"{name}: {found[name]} ({time.perf_counter() - start:.0f} s)", flush=True)
    noticed = sum(end == "noticed" for end in found.values())
    print(f"{noticed} of {len(found)} mutants noticed")
    return int(noticed < len(found))


if __name__ == "__main__":
    sys.exit(main())
