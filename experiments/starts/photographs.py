"""Collects the freely licensed photographs of scikit-image and scikit-learn into a folder, for `rwkvlib pretrain`.

    pip install scikit-image scikit-learn
    python experiments/starts/photographs.py --out data/photographs

Both packages carry pictures inside their wheels; neither is needed for anything else. Taken are those that scikit-image
calls CC0 or public domain, and scikit-learn's two under CC BY 2.0. Left out are moon and page, of which nothing is
said, coins and ihc ("no known copyright restrictions") and motorcycle, whose terms are not as free. The files are
copied as they are; photographs.csv beside them says the source, the licence and the SHA-256 of each.
"""

import argparse
import csv
import hashlib
import importlib.util
import sys
from pathlib import Path

from rwkvlib.files import write_file

CC0, PUBLIC, BY = "CC0 1.0", "public domain", "CC BY 2.0"
# By package the folder, and of each picture the licence and whom the package names for it.
PICTURES = {
    "skimage": (
        "data",
        {
            "astronaut.png": (PUBLIC, "NASA"),
            "brick.png": (CC0, "CC0Textures, Bricks25"),
            "camera.png": (CC0, "Lav Varshney"),
            "cell.png": (CC0, "qpformat, quantitative phase image of a cell"),
            "chelsea.png": (CC0, "Stefan van der Walt"),
            "clock_motion.png": (PUBLIC, "Stefan van der Walt"),
            "coffee.png": (CC0, "Rachel Michetti"),
            "grass.png": (CC0, "linolafett, DeviantArt"),
            "gravel.png": (CC0, "CC0Textures, Gravel04"),
            "horse.png": (CC0, "Andreas Preuss, openclipart"),
            "hubble_deep_field.jpg": (PUBLIC, "NASA, HubbleSite"),
            "microaneurysms.png": (CC0, "Andreas Maier, High-Resolution Fundus database"),
            "retina.jpg": (CC0, "Mikael Häggström, Wikimedia Commons"),
            "rocket.jpg": (PUBLIC, "SpaceX"),
            "text.png": (PUBLIC, "Wikipedia, Corner.png"),
        },
    ),
    "sklearn": (
        "datasets/images",
        {
            "china.jpg": (BY, "danielbuechele, flickr.com/photos/danielbuechele/6061409035"),
            "flower.jpg": (BY, "vultilion, flickr.com/photos/vultilion/6056698931"),
        },
    ),
}
NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
TABLE = "photographs.csv"


def collect(out: Path) -> list[dict[str, str]]:
    """Copies the pictures into `out` and writes the table. Nothing is written where a package or a picture is missing.

    Returns: the table's rows. Raises: ImportError, FileNotFoundError.
    """
    found = {}
    for package, (folder, pictures) in PICTURES.items():
        spec = importlib.util.find_spec(package)  # without an import, which takes seconds
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"{package}: expected {NAMES[package]}: pip install {NAMES[package]}")
        root = Path(spec.submodule_search_locations[0], folder)
        for name, (licence, credit) in pictures.items():
            if not (root / name).is_file():
                raise FileNotFoundError(f"{name}: expected it in {NAMES[package]}, got no file {str(root / name)!r}")
            content = (root / name).read_bytes()
            row = dict(name=name, source=NAMES[package], licence=licence, credit=credit)
            found[name] = content, row | {"sha256": hashlib.sha256(content).hexdigest()}
    out.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in found.items():
        write_file(out / name, content)
    rows = [row for _, row in found.values()]
    with open(out / TABLE, "w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and the table")
    args = parser.parse_args()
    try:
        rows = collect(args.out.expanduser())
    except (ImportError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    for row in rows:
        print(f"{row['name']:<22} {row['source']:<13} {row['licence']:<14} {row['sha256'][:16]}  {row['credit']}")
    print(f"{len(rows)} pictures and {TABLE} in {args.out}")


if __name__ == "__main__":
    main()
