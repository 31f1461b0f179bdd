"""The data layout, and augmentation."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from rwkvlib.data import load_data, synthetic_polyps


@pytest.fixture
def folder(tmp_path):
    """Four items in the documented layout, with what such data sets bring: spaces and parentheses in a name."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    names = ["a", "b (1)", "c", "d"]
    for i, name in enumerate(names):
        image, mask = synthetic_polyps(i, 40)
        Image.fromarray(image).save(root / "images" / f"{name}.{'png' if i % 2 else 'jpg'}")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "items.csv").write_text("name,split\na,train\nb (1),train\nc,validation\nd,test\n")
    return root


def test_folder_and_zip_give_the_same(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    a, b = load_data(folder, "train", size=32), load_data(tmp_path / "set.zip", "train", size=32)
    assert a.names == b.names == ["a", "b (1)"]
    assert np.array_equal(a.images, b.images) and np.array_equal(a.masks, b.masks)
    item = a[1]
    assert item["image"].shape == (3, 32, 32) and 0 <= item["image"].min() <= item["image"].max() <= 1
    assert item["mask"].shape == (1, 32, 32) and item["name"] == "b (1)"


def test_masks_are_read_as_they_are(folder):
    data = load_data(folder)
    assert np.array_equal(data.masks[1], synthetic_polyps(1, 40)[1])
    assert set(np.unique(load_data(folder, size=16).masks)) <= {0, 1}


def test_bad_data_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="data: expected a folder or zip"):
        load_data(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"split: expected one of \['test', 'train', 'validation'\], got 'val'"):
        load_data(folder, "val")
    (folder / "masks" / "c.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"item 'c' .* does not decode"):
        load_data(folder, "validation")
    (folder / "masks" / "c.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"item 'c' .* has no masks/c\.png"):
        load_data(folder, "validation")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(folder / "masks" / "d.png")
    with pytest.raises(ValueError, match=r"item 'd': expected a one-channel mask of the image's size \(40, 40\)"):
        load_data(folder, "test")
    (folder / "items.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"items\.csv"):
        load_data(folder)


def test_images_of_several_sizes_need_a_size(folder):
    Image.fromarray(synthetic_polyps(0, 24)[0]).save(folder / "images" / "a.jpg")
    Image.fromarray(synthetic_polyps(0, 24)[1]).save(folder / "masks" / "a.png")
    with pytest.raises(ValueError, match="size: the images differ in size"):
        load_data(folder, "train")
    assert load_data(folder, "train", size=32).images.shape == (2, 32, 32, 3)


def test_augmentation_moves_image_and_mask_alike():
    pytest.importorskip("kornia")
    from rwkvlib.data.augment import default_augmentation

    torch.manual_seed(0)
    mask = (torch.rand(8, 1, 16, 16) > 0.5).float()
    image, moved = default_augmentation()(mask.repeat(1, 3, 1, 1) * 0.5 + 0.25, mask)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    for i, m in zip(image, moved, strict=True):  # brightness and contrast keep the order of light and dark
        assert i[:, m[0] == 1].min() > i[:, m[0] == 0].max()
    assert not torch.equal(moved, mask)
