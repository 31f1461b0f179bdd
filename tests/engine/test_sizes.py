"""Images that are no squares, keep their shape, are cut into patches or stay in their files."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn as nn
from PIL import Image
from torch.utils.data import DataLoader

from rwkvlib import load_checkpoint
from rwkvlib.__main__ import main
from rwkvlib.data import dataset as dataset_module
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.data.augment import make_augmentation
from rwkvlib.data.dataset import FileData, Patches, SegmentationData, open_data
from rwkvlib.engine.config import TrainConfig
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.predict import predict
from rwkvlib.engine.train import train
from tests.conftest import TINY
from tests.engine.test_resume import assert_same_end


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Eight images, twice as wide as high, of two sizes."""
    folder, rows = tmp_path_factory.mktemp("wide"), []
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(8):
        height = 40 if i % 2 else 48
        for kind, pixels in zip(("images", "masks"), synthetic_polyps(i, 96), strict=True):
            Image.fromarray(pixels[20 : 20 + height, : 2 * height]).save(folder / kind / f"{i}.png")
        rows.append(
            dict(name=i, split="train" if i < 4 else "validation" if i < 6 else "test", spacing_x=1, spacing_y=1)
        )
    pd.DataFrame(rows).to_csv(folder / "items.csv", index=False)
    return folder


def make(wide, **fields):
    given = dict(data=str(wide), epochs=2, batch_size=2, overrides=TINY, augment="default") | fields
    return TrainConfig(**given)


def test_a_letterbox_keeps_the_shape_and_the_rest_is_black_background(wide):
    data = load_data(wide, "train", size=(32, 48), resize="letterbox")
    assert data.images.shape == (4, 32, 48, 3) and data.masks.shape == (4, 32, 48)
    whole = np.asarray(Image.open(wide / "images/1.png").resize((48, 24), Image.BILINEAR))
    assert np.array_equal(data.images[1, 4:28], whole)
    for array in (data.images, data.masks):
        assert not array[:, :4].any() and not array[:, 28:].any()
    assert data.items["spacing_x"].tolist() == data.items["spacing_y"].tolist() == [2.0, 80 / 48] * 2
    with pytest.raises(ValueError, match="resize: expected squash or letterbox, got 'fit'"):
        load_data(wide, "train", size=32, resize="fit")
    tall = load_data("synthetic:4", "test", size=(32, 48))
    assert tall.images.shape == (1, 32, 48, 3) and tall.masks.any()


class Brightness(nn.Module):
    """The mean over channels, as logits; notes the shapes that it sees."""

    def __init__(self):
        super().__init__()
        self.factor, self.seen = nn.Parameter(torch.ones(1)), []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return x.mean(1, keepdim=True) * self.factor


def test_prediction_undoes_the_letterbox():
    model, image = Brightness(), torch.linspace(0.2, 0.9, 80).expand(1, 3, 40, 80)
    found = predict(model, image, size=(32, 32), resize="letterbox")
    assert model.seen == [(32, 32)] and found.shape == (1, 1, 40, 80)
    expected = predict(model, image)
    assert (found - expected).abs().max() < 0.1, "with black in it the edges would be far off"
    assert predict(model, image, window=(32, 48)).shape == (1, 1, 40, 80) and model.seen[-1] == (32, 48)
    flipped = predict(model, image, size=(32, 32), resize="letterbox", flips=True)
    assert torch.allclose(found, flipped, atol=1e-5)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_what_memory_does(zipped, workers, wide, tmp_path):
    path = wide
    if zipped:
        import shutil

        path = shutil.make_archive(str(tmp_path / "set"), "zip", wide)
    held, files = (open_data(path, "train", size=(32, 48), classes=2, in_memory=m) for m in (True, False))
    assert isinstance(held, SegmentationData) and isinstance(files, FileData)
    loader = DataLoader(files, 1, sampler=[3, 1, 0, 2, 1], num_workers=workers)
    for i, batch in zip([3, 1, 0, 2, 1], loader, strict=True):
        assert torch.equal(batch["image"][0], held[i]["image"]) and torch.equal(batch["mask"][0], held[i]["mask"])
    assert [len(part) for part in files.parts(3)] == [3, 1]
    assert np.array_equal(np.concatenate([part.images for part in files.parts(3)]), held.images)
    assert files.sha256() == open_data(path, "train", size=(32, 48), in_memory=False).sha256() != held.sha256()


def test_a_large_split_stays_in_its_files(wide, monkeypatch):
    assert isinstance(open_data(wide, "train", size=32), SegmentationData)
    monkeypatch.setattr(dataset_module, "HELD", 4 * 4 * 32 * 32 - 1)
    assert isinstance(open_data(wide, "train", size=32), FileData)
    assert isinstance(open_data(wide, "train", size=32, in_memory=True), SegmentationData)


def test_patches_depend_on_seed_step_and_item_alone(wide):
    files = open_data(wide, "train")
    patches = Patches(files, (32, 48), seed=3)
    first = patches[1, 5]
    assert torch.equal(first["image"], patches[1, 5]["image"]) and first["image"].shape == (3, 32, 48)
    assert not torch.equal(first["image"], patches[1, 6]["image"])
    assert not torch.equal(first["image"], Patches(files, (32, 48), seed=4)[1, 5]["image"])
    image, mask = (
        files[1]["image"].unfold(1, 32, 1).unfold(2, 48, 1),
        files[1]["mask"].unfold(1, 32, 1).unfold(2, 48, 1),
    )
    where = (image == first["image"][:, None, None]).all(-1).all(-1).all(0).nonzero()
    assert len(where) == 1 and torch.equal(mask[0, where[0, 0], where[0, 1]], first["mask"][0]), "they move together"
    large = Patches(files, 64)[1, 0]
    assert large["image"].shape == (3, 64, 64)
    assert torch.equal(large["image"][:, 40:], large["image"][:, 39:40].expand(3, 24, 64)), "continued by the edge"
    assert torch.equal(large["mask"][:, 40:], large["mask"][:, 39:40].expand(1, 24, 64))


@pytest.mark.parametrize("name", ["default", "paper_acdc", "strong"])
def test_oblongs_are_augmented_without_quarter_turns(name):
    torch.manual_seed(0)
    image, mask = make_augmentation(name, (32, 64))(torch.ones(16, 3, 32, 64) / 2, torch.ones(16, 1, 32, 64))
    assert image.shape == (16, 3, 32, 64)
    if name == "default":
        assert mask.all(), "nothing is turned out of the frame"


def test_data_in_files_train_to_the_same_bit(wide, tmp_path):
    for name, fields in (("host", dict(data_on="host")), ("files", dict(data_on="files", num_workers=1))):
        train(make(wide, size=(32, 48), resize="letterbox", **fields), tmp_path / name, progress=name == "files")
    assert_same_end(tmp_path / "host", tmp_path / "files")
    meta = load_checkpoint(tmp_path / "host")[1]
    assert (meta["size"], meta["resize"]) == ([32, 48], "letterbox") and "crop" not in meta


def test_a_run_on_patches_resumes_to_the_bit_and_its_checkpoint_says_how_to_predict(wide, tmp_path, capsys):
    config = make(wide, size=None, crop=32)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=1, progress=False)
    train(make(wide, size=None, crop=32, num_workers=1), tmp_path / "parts", resume=True, progress=False)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    main(["evaluate", str(tmp_path / "whole"), str(wide), "--out", str(tmp_path / "scores")])
    assert json.loads((tmp_path / "scores/summary.json").read_text())["scored_at"] == "own size"
    cases = pd.read_csv(tmp_path / "scores/cases.csv")
    model, meta = load_checkpoint(tmp_path / "whole")
    assert (meta["size"], meta["crop"]) == (None, 32)
    expected = evaluate(model, open_data(wide, "test").parts(), window=32)
    assert np.allclose(cases["dice"], expected["dice"], atol=1e-5, equal_nan=True)
    main(["predict", str(tmp_path / "whole"), str(wide / "images/0.png"), "--out", str(tmp_path / "masks")])
    image = torch.from_numpy(np.array(Image.open(wide / "images/0.png"))).permute(2, 0, 1)[None] / 255
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "masks/0.png")) > 0, predict(model, image, window=32)[0, 0] > 0
    )


def test_evaluation_and_prediction_keep_the_shape_that_training_kept(wide, tmp_path):
    train(make(wide, size=(32, 48), resize="letterbox", epochs=1), tmp_path / "run", progress=False)
    model = load_checkpoint(tmp_path / "run")[0]
    for more in ([], ["--native"]):
        main(["evaluate", str(tmp_path / "run"), str(wide), "--overwrite", "--out", str(tmp_path / "scores"), *more])
        options = dict(size=(32, 48), resize="letterbox")
        parts = open_data(wide, "test").parts() if more else load_data(wide, "test", **options)
        expected = evaluate(model, parts, **options)
        found = pd.read_csv(tmp_path / "scores/cases.csv")
        assert np.allclose(found["dice"], expected["dice"], atol=1e-5, equal_nan=True)
        assert found["predicted"].tolist() == expected["predicted"].tolist()
    main(["predict", str(tmp_path / "run"), str(wide / "images/1.png"), "--out", str(tmp_path / "masks")])
    assert Image.open(tmp_path / "masks/1.png").size == (80, 40)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(size=None), "size: expected pixels, got null, which leaves images at their own size for crop=PIXELS"),
        (
            dict(size=32, crop=48),
            "crop: expected at most size = 32, to which images are resized first, got 48; size=null",
        ),
        (dict(size=None, crop=32, resize="letterbox"), "resize: 'letterbox' takes a size, got size=null"),
        (dict(size=None, crop=32, data_on="host"), "data_on: images of any size stay in files, got 'host'; take auto"),
        (dict(crop=0), "crop: expected at least 1, got 0"),
        (dict(size=[32, 0]), r"size: expected at least 1, got \(32, 0\)"),
        (dict(size=[32, 32, 3]), "size: expected 2 values, got 3"),
        (dict(resize="fit"), "resize: expected one of squash, letterbox, got 'fit'"),
    ],
)
def test_what_contradicts_itself_is_named(fields, message, wide):
    with pytest.raises(ValueError, match=message):
        make(wide, **fields)


def test_sizes_that_the_network_cannot_halve_are_named(wide, tmp_path):
    for fields, message in (
        (dict(size=(32, 40)), "size: expected a multiple of 16 for .*got 40; near ones: 32, 48"),
        (dict(size=None, crop=40), "crop: expected a multiple of 16 for"),
    ):
        with pytest.raises(ValueError, match=message):
            train(make(wide, **fields), tmp_path / "run", progress=False)
    assert make(wide, size=[32, 32]).size == 32
