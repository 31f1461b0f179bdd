"""Committed splits narrowed to what a small raw tree holds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts import prepare as prepare_module
from data_scripts.entry import Entry
from data_scripts.registry import find
from data_scripts.similarity import fingerprint
from data_scripts.splits import load_splits
from tests.data_scripts.raw_trees import blob, picture, save


@pytest.fixture
def knows_only(monkeypatch):
    """Narrows a committed split to some of its keys, for a tree of a few items."""

    def narrow(keys):
        def load(name):
            table = load_splits(name)
            return table[table[table.columns[0]].isin(keys)]

        monkeypatch.setattr(prepare_module, "load_splits", load)

    return narrow


@pytest.fixture
def kvasir_split(monkeypatch):
    """A committed split for the tree of Kvasir-SEG that `build` makes: its own images' fingerprints, at another size
    and compression, as the real ones differ between copies."""

    def set_up(raw: Path):
        rows = []
        for i, file in enumerate(sorted((raw / "Kvasir-SEG/images").glob("*.jpg"))):
            copy = save(np.asarray(Image.open(file).resize((64, 64), Image.BILINEAR)), raw / "copy.jpg", quality=60)
            rows.append((fingerprint(Image.open(copy)), ("train", "validation", "test")[i % 3]))
        copy.unlink()
        table = pd.DataFrame(rows, columns=["fingerprint", "split"])
        monkeypatch.setattr(prepare_module, "load_splits", lambda name: table)

    return set_up


@pytest.fixture
def small(tmp_path, knows_only) -> tuple[Entry, Path]:
    """Four frames of CVC-ClinicDB, all of them good."""
    knows_only(["1", "2", "3", "4"])
    for i in range(1, 5):
        save(picture(i), tmp_path / f"raw/Original/{i}.tif")
        save(blob(), tmp_path / f"raw/Ground Truth/{i}.tif")
    return find("cvc_clinicdb"), tmp_path / "raw"
