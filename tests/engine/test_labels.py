"""Other channels than RGB, pixels that do not count, weighted and overlapping classes."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from monai.losses import FocalLoss
from PIL import Image

from rwkvlib import load_checkpoint
from rwkvlib.__main__ import main
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.data.dataset import iter_items
from rwkvlib.data.files import read_channels
from rwkvlib.engine.config import TrainConfig
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.losses import LOSSES, make_loss
from rwkvlib.engine.metrics import score
from rwkvlib.engine.predict import to_labels
from rwkvlib.engine.train import train
from tests.conftest import TINY


@pytest.fixture
def write_set(tmp_path):
    """A function that writes eight images and masks, each by a function from (path without suffix, array)."""

    def write(image, mask, folder=tmp_path / "set"):
        rows = []
        for i in range(8):
            pixels, labels = synthetic_polyps(i, 32)
            for kind, save, array in (("images", image, pixels), ("masks", mask, labels)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                save(folder / kind / str(i), array)
            rows.append(dict(name=i, split=["train", "train", "validation", "test"][i // 2]))
        pd.DataFrame(rows).to_csv(folder / "items.csv", index=False)
        return folder

    return write


def png(path, array):
    Image.fromarray(array).save(f"{path}.png")


def grey(path, array):
    png(path, array[..., 0])


def two_channels(path, array):
    np.save(f"{path}.npy", array[..., :2])


def deep_archive(path, array):
    np.savez_compressed(f"{path}.npz", image=array[..., [0, 1, 2, 0]].astype(np.float32) * 100)


def pages(path, array):
    first, *rest = (Image.fromarray(array[..., c]) for c in (0, 1, 2, 1))
    first.save(f"{path}.tif", save_all=True, append_images=rest)


def transparent(path, array):
    png(path, np.dstack([array, 255 - array[..., 0]]))


@pytest.mark.parametrize(
    ("image", "channels", "suffix"),
    [
        (grey, 1, ".png"),
        (two_channels, 2, ".npy"),
        (deep_archive, 4, ".npz"),
        (pages, 4, ".tif"),
        (transparent, 4, ".png"),
    ],
)
def test_channels_train_score_and_predict(image, channels, suffix, write_set, tmp_path, capsys):
    folder = write_set(image, png)
    data = load_data(folder, "train", size=32, in_channels=channels)
    assert data.images.shape == (4, 32, 32, channels)
    assert np.corrcoef(data.images[0, ..., 0].ravel(), synthetic_polyps(0, 32)[0][..., 0].ravel())[0, 1] > 0.99
    model = "rwkv_unet_t" if channels != 2 else "unet_narrow"
    overrides = TINY if channels != 2 else {}
    config = TrainConfig(
        data=str(folder), size=32, epochs=1, batch_size=2, in_channels=channels, model=model, overrides=overrides
    )
    train(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")[1]["overrides"]["in_channels"] == channels
    main(["evaluate", str(tmp_path / "run"), str(folder)])
    main(
        ["predict", str(tmp_path / "run"), str(folder / f"images/0{suffix}"), "--overlay", "--out", str(tmp_path / "m")]
    )
    assert np.asarray(Image.open(tmp_path / "m/0.png")).shape == (32, 32)
    main(["audit", str(folder)])  # which looks at three of them
    assert next(iter_items(folder))[1]()[0].mode == "RGB"


@pytest.mark.parametrize(
    ("image", "channels", "message"),
    [
        (
            png,
            1,
            r"in_channels: expected 1, got colours; set in_channels to 3, or convert the images: images/\d.png of",
        ),
        (png, 2, "in_channels: expected 2, got colours; set in_channels to 3"),
        (grey, 4, "in_channels: expected 4, got 1 channel; set in_channels to 1"),
        (two_channels, 3, "in_channels: expected 3, got 2 channels; set in_channels to 2"),
        (pages, 2, "in_channels: expected 2, got 4 channels; set in_channels to 4"),
    ],
)
def test_other_channels_than_the_recipes_are_named(image, channels, message, write_set):
    with pytest.raises(ValueError, match=message):
        load_data(write_set(image, png), "train", size=32, in_channels=channels)


def test_bad_arrays_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3))
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4, 5)))
    for name, message in (("a.npz", "expected one array, got 2: x, y"), ("b.npy", r"expected numbers \(H, W\) or")):
        with pytest.raises(ValueError, match=message):
            read_channels(tmp_path / name, name)


def with_void(path, array):
    array = array.copy()
    array[:4] = 255
    png(path, array)


def test_ignored_pixels_count_in_no_score(write_set, tmp_path):
    folder = write_set(png, with_void)
    with pytest.raises(ValueError, match="set ignore_index to 255 where such pixels are to count for nothing"):
        load_data(folder, "train", size=32, classes=2)
    config = TrainConfig(data=str(folder), size=32, epochs=1, batch_size=2, overrides=TINY, ignore_index=255)
    train(config, tmp_path / "run")
    main(["evaluate", str(tmp_path / "run"), str(folder), "--out", str(tmp_path / "scores")])
    cases, model = pd.read_csv(tmp_path / "scores/cases.csv"), load_checkpoint(tmp_path / "run")[0]
    data = load_data(folder, "test", size=32, classes=2, ignore_index=255)
    assert set(np.unique(data.masks)) == {0, 1, 255}
    assert np.allclose(cases["specificity"], evaluate(model, data, ignore_index=255)["specificity"], atol=1e-5)
    for mask, truth in zip(data.masks, cases["truth"], strict=True):
        assert truth == (mask == 1).sum()


def test_scores_are_those_of_the_counted_pixels_alone():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 3, (2, 16, 16))
    marked = truth.copy()
    marked[:5] = 9
    found, rest = score(prediction, marked, 3, ignore_index=9), score(prediction[5:], truth[5:], 3)
    for a, b in zip(found, rest, strict=True):
        assert {k: v for k, v in a.items() if k != "hd95"} == {k: v for k, v in b.items() if k != "hd95"}


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("classes", [1, 3])
def test_no_loss_knows_of_ignored_pixels(name, classes):
    torch.manual_seed(0)
    logits, mask = (
        torch.randn(2, classes, 8, 8, requires_grad=True),
        torch.randint(max(2, classes), (2, 1, 8, 8)).float(),
    )
    loss = make_loss(name, classes, ignore_index=255)
    assert torch.allclose(loss(logits, mask), make_loss(name, classes)(logits, mask), atol=1e-6), "where none is"
    marked = mask.clone()
    marked[:, :, 5:] = 255
    loss(logits, marked).backward()
    assert not logits.grad[:, :, 5:].any() and logits.grad[:, :, :5].any()
    assert torch.allclose(loss(logits, marked), make_loss(name, classes)(logits[:, :, :5], mask[:, :, :5]), atol=1e-6)
    assert loss(logits, torch.full_like(mask, 255)) == 0


def test_class_weights_weigh_pixels_and_classes():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 1, 8, 8))
    weights = (1.0, 2.0, 5.0)
    found = make_loss("synapse", 3, class_weights=weights)(logits, mask)
    ce = F.cross_entropy(logits, mask[:, 0], weight=torch.tensor(weights))
    p, g = logits.softmax(1), F.one_hot(mask[:, 0], 3).movedim(-1, 1)
    dice = 1 - (2 * (p * g).sum((0, 2, 3)) + 1e-5) / ((p**2).sum((0, 2, 3)) + g.sum((0, 2, 3)) + 1e-5)
    assert torch.allclose(found, 0.5 * ce + 0.5 * (dice * torch.tensor(weights)).sum() / 8)
    one = logits[:, :1]
    binary = (mask > 0).float()
    heavy = make_loss("binary", 1, class_weights=(1, 3))(one, binary) - make_loss("binary", 1)(one, binary)
    by_pixel = F.binary_cross_entropy_with_logits(one, binary, reduction="none")
    weighted = (by_pixel * (1 + 2 * binary)).sum() / (1 + 2 * binary).sum()
    assert torch.allclose(heavy, 0.5 * (weighted - by_pixel.mean()), atol=1e-6)
    focal = FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True, weight=weights)
    assert torch.equal(make_loss("focal", 3, class_weights=weights)(logits, mask), focal(logits, mask))
    with pytest.raises(
        ValueError, match="class_weights: the loss 'tversky' takes none; those that do: binary, synapse"
    ):
        make_loss("tversky", 3, class_weights=weights)


def overlapping(path, array):
    """The polyp, and the left half of the image."""
    left = np.broadcast_to(np.arange(32) < 16, (32, 32))
    np.save(f"{path}.npy", np.stack([array, left], -1).astype(np.uint8))


def test_overlapping_labels_train_score_and_predict(write_set, tmp_path):
    folder = write_set(png, overlapping)
    options = dict(classes=3, overlapping=True)
    data = load_data(folder, "train", size=32, **options)
    for i, mask in enumerate(data.masks):
        assert np.array_equal(mask & 1, synthetic_polyps(i, 32)[1]) and (mask >> 1 & 1)[:, :16].all()
    given = dict(data=str(folder), size=32, epochs=30, batch_size=4, lr=1e-2, overrides=TINY, augment="none")
    config = TrainConfig(**given, num_classes=2, overlapping=True, class_weights=[1, 2])
    log = train(config, tmp_path / "run")
    assert log[-1]["dice_2"] > 0.9, "left is easy to learn"
    main(["evaluate", str(tmp_path / "run"), str(folder), "--out", str(tmp_path / "scores")])
    cases, test = pd.read_csv(tmp_path / "scores/cases.csv"), load_data(folder, "test", size=32, **options)
    assert cases["class"].tolist() == [1, 2, 1, 2]
    assert cases["truth"].tolist() == [int((m >> b & 1).sum()) for m in test.masks for b in (0, 1)]
    main(["predict", str(tmp_path / "run"), str(folder / "images"), "--out", str(tmp_path / "masks")])
    found = np.asarray(Image.open(tmp_path / "masks/6.png"))
    assert (found >> 1 & 1).sum() == cases["predicted"][1]
    for file in (folder / "masks").glob("*.npy"):  # what is written is what can be read
        file.unlink()
        (tmp_path / f"masks/{file.stem}.png").rename(file.with_suffix(".png"))
    again = load_data(folder, "test", size=32, **options)
    assert np.array_equal(again.masks[0], found)


def test_overlapping_labels_are_sums_of_bits():
    logits = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1)
    assert to_labels(logits, overlapping=True).item() == 5
    truth = torch.tensor([[[[5.0]]]])
    found = make_loss("focal", 3, overlapping=True)(logits, truth)
    each = [make_loss("focal", 1)(logits[:, i : i + 1], torch.full((1, 1, 1, 1), float(i != 1))) for i in range(3)]
    assert torch.allclose(found, torch.stack(each).mean())


def test_masks_that_are_no_overlapping_labels_are_named(write_set):
    folder = write_set(png, overlapping)
    with pytest.raises(
        ValueError, match=r"have uint8 \(32, 32, 2\), expected \(H, W, 3\) of 0 and 1: a channel for each"
    ):
        load_data(folder, "train", size=32, classes=4, overlapping=True)
    with pytest.raises(
        ValueError, match=r"expected class indices of 0 to 254 \(H, W\); labels that overlap: overlapping"
    ):
        load_data(folder, "train", size=32, classes=3)
    with pytest.raises(ValueError, match="overlapping: the labels of 'synthetic:4' do not overlap"):
        load_data("synthetic:4", "train", overlapping=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(in_channels=0), "in_channels: expected at least 1, got 0"),
        (dict(ignore_index=1), "ignore_index: expected 2 to 255, a value that is no class of num_classes = 1, got 1"),
        (dict(ignore_index=255, overlapping=True), "ignore_index: expected null where labels are overlapping"),
        (
            dict(class_weights=[1]),
            "class_weights: expected 2 numbers, the background's and one for each other class, got 1",
        ),
        (dict(class_weights=[1, 2], num_classes=3), "class_weights: expected 3 numbers"),
        (dict(class_weights=[1, 2], overlapping=True), "class_weights: expected 1 numbers, one for each class, got 2"),
        (dict(class_weights=[0, 0]), "class_weights: expected numbers of at least 0, one above it"),
        (dict(num_classes=9, overlapping=True), "num_classes: expected at most 8 where labels are overlapping, got 9"),
    ],
)
def test_what_a_recipe_cannot_mean_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(data="synthetic:4", **fields)
