"""The data layout, and augmentation."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.data.dataset import class_names


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
    write_mask(folder, "b (1)", synthetic_polyps(1, 40)[1] * 3)
    assert set(np.unique(load_data(folder, size=15, classes=4).masks[1])) == {0, 3}, "no class that is none of the mask"


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


# Own data, as they come


def write_mask(folder, name, values):
    Image.fromarray(values).save(folder / "masks" / f"{name}.png")


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "PNG", "tif", "TIFF", "bmp"])
def test_every_suffix_that_prediction_takes_is_read(folder, suffix):
    before = load_data(folder, "train")
    for kind in ("images", "masks"):
        if kind == "masks" and suffix.lower().startswith("jp"):
            continue
        old = next((folder / kind).glob("a.*"))
        Image.open(old).save(folder / kind / f"b.{suffix}", quality=100) if kind == "images" else Image.open(old).save(
            folder / kind / f"b.{suffix}"
        )
        old.unlink()
        (folder / kind / f"b.{suffix}").rename(folder / kind / f"a.{suffix}")
    after = load_data(folder, "train")
    assert np.array_equal(after.masks, before.masks)
    assert np.abs(after.images.astype(int) - before.images).mean() < 2


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_two_files_of_one_item_are_an_error(folder, kind):
    own = next((folder / kind).glob("a.*"))
    Image.open(own).save(folder / kind / "a.bmp")
    with pytest.raises(ValueError, match=rf"item 'a' of .* has several files: {kind}/a\.bmp, {kind}/a\.\w+; keep one"):
        load_data(folder, "train")


def test_sixteen_bits_are_read_as_prediction_reads_them(folder):
    from rwkvlib.data.files import read_picture

    grey = np.asarray(Image.open(folder / "images/d.png").convert("L")).astype(np.uint16)
    Image.fromarray(grey * 16).save(folder / "images/d.png")
    data = load_data(folder, "test")
    assert np.array_equal(data.images, read_picture(folder / "images/d.png").pixels)
    assert data.images.min() == 0 and data.images.max() == 255 and len(np.unique(data.images)) > 50


@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_photographs_lie_under_their_masks(folder, orientation):
    image, mask = np.zeros((24, 40, 3), np.uint8), np.zeros((24, 40), np.uint8)
    image[3:9, 5:20], mask[3:9, 5:20] = 255, 1
    tags = Image.Exif()
    tags[0x0112] = orientation
    way = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    Image.fromarray(image).transpose(way).save(folder / "images/c.jpg", quality=95, exif=tags)
    write_mask(folder, "c", mask)
    data = load_data(folder, "validation")
    assert data.images[data.masks == 1].mean() > 240 and data.images[data.masks == 0].mean() < 10


def test_what_prediction_wrote_is_a_mask(folder, tmp_path):
    for file in (folder / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) * 255).save(file)
    write_mask(folder, "d", np.asarray(Image.open(folder / "masks/d.png")) // 255)  # a corrected one
    for classes in (None, 2):
        assert np.array_equal(load_data(folder, "train", classes=classes).masks[1], synthetic_polyps(1, 40)[1])
        assert np.array_equal(load_data(folder, "test", classes=classes).masks[0], synthetic_polyps(3, 40)[1])
    with pytest.raises(ValueError, match=r"masks/a\.png and 2 more have values 0, 255\. 255 stands for the one class"):
        load_data(folder, "train", classes=4)


@pytest.mark.parametrize("split", ["train", "test"])
def test_wrong_masks_of_any_split_are_named_when_the_data_are_opened(folder, split):
    mask = synthetic_polyps(3, 40)[1]
    mask[0, 0] = 2
    write_mask(folder, "d", mask)
    message = (
        r"data: 1 of 4 masks of .* hold something else than class indices 0 to 1: masks/d\.png has values 0, 1, 2\. "
        "Renumber them from 0, the background, or set num_classes to 3"
    )
    with pytest.raises(ValueError, match=message):
        load_data(folder, split, classes=2)
    assert load_data(folder, split, classes=3).masks.max() == (1 if split == "train" else 2)
    (folder / "dataset.json").write_text('{"classes": ["background", "polyp"]}')
    with pytest.raises(ValueError, match=message):
        load_data(folder, split)
    mask[0, 0] = 255  # "void"
    write_mask(folder, "d", mask)
    with pytest.raises(ValueError, match=r"masks/d\.png has values 0, 1, 255\. 255 stands for"):
        load_data(folder, split)


def test_classes_are_those_of_dataset_json(folder):
    assert class_names(folder) is None and class_names("synthetic") is None
    card = folder / "dataset.json"
    card.write_text('{"title": "mine"}')
    assert class_names(folder) is None and len(load_data(folder, "train", classes=4)) == 2, "another file of that name"
    card.write_text('{"classes": ["background", "polyp"]}')
    assert class_names(folder) == ("background", "polyp")
    assert len(load_data(folder, "train", classes=2)) == len(load_data(folder, "train")) == 2
    message = r"num_classes: dataset\.json of .* names 2 classes \(background, polyp\), got a model of 4; set .* to 1,"
    with pytest.raises(ValueError, match=message):
        load_data(folder, "train", classes=4)
    for text, message in [
        ('{"classes": ["background"', r"data: dataset\.json of .*: expected JSON, got .*; correct it, or take it out"),
        ('{"classes": ["background"]}', r"classes: expected the names of the background and of every class, got \["),
        ('{"classes": 2}', "every class, got 2"),
        ('{"classes": [0, 1]}', r"every class, got \[0, 1\]"),
    ]:
        card.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_data(folder, "train")


def test_masks_that_jpeg_blurred_or_colours_fill_are_named(folder):
    mask = Image.fromarray(synthetic_polyps(0, 40)[1] * 255)
    mask.save(folder / "masks/a.jpg", quality=60)
    (folder / "masks/a.png").unlink()
    with pytest.raises(ValueError, match=r"masks/a\.jpg has values 0, 1, .* of them\)\. So many are grey levels"):
        load_data(folder, "test")
    (folder / "masks/a.jpg").unlink()
    Image.merge("RGB", [mask, mask.point(lambda v: 0), mask]).save(folder / "masks/a.png")
    with pytest.raises(ValueError, match=r"masks/a\.png has colours \(0, 0, 0\), \(255, 0, 255\): save one channel"):
        load_data(folder, "test")


def test_links_and_hidden_files(folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for kind in ("images", "masks"):
        (linked / kind).symlink_to(folder / kind)
    (folder / "images/.a.png").write_bytes(b"")
    (linked / "items.csv").write_text((folder / "items.csv").read_text())
    assert load_data(linked, "train").sha256() == load_data(folder, "train").sha256()


@pytest.mark.parametrize("kind", ["one folder inside", "backslashes", "macOS", "NFD"])
def test_zips_of_every_system(folder, tmp_path, kind):
    if kind == "NFD":
        for part in ("images", "masks"):
            own = next((folder / part).glob("a.*"))
            own.rename(own.with_name(f"u\u0308ber{own.suffix}"))
        table = (folder / "items.csv").read_text()
        (folder / "items.csv").write_text(table.replace("\na,", "\n\u00fcber,"), encoding="utf8")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            name = file.relative_to(folder).as_posix()
            if kind == "one folder inside":
                name = f"my set/{name}"
            if kind == "backslashes":
                name = name.replace("/", "\\")
            archive.write(file, name)
            if kind in ("macOS", "one folder inside"):
                archive.writestr(f"__MACOSX/{name}", b"")
    assert np.array_equal(load_data(tmp_path / "set.zip", "train").images, load_data(folder, "train").images)
    cut = tmp_path / "cut.zip"
    cut.write_bytes((tmp_path / "set.zip").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.zip': no zip, or one that is cut short"):
        load_data(cut)


def test_tables_are_named_with_their_file(folder):
    (folder / "items.csv").write_text("name,split\na,train,x\n")
    with pytest.raises(ValueError, match=r"data: items\.csv of '.*set', line 2: expected 2 values"):
        load_data(folder, "train")
    (folder / "items.csv").write_bytes("name\nm\u00fcller\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"data: items\.csv of '.*set', line 2: expected UTF-8"):
        load_data(folder)
    (folder / "items.csv").write_text("name\na\n")
    with pytest.raises(ValueError, match=r"column: expected one of \[\], got 'split'; add it to items\.csv"):
        load_data(folder, "train")
    assert load_data(folder).names == ["a"]


def test_folds_are_splits_and_misspelt_ones_are_reported(folder):
    (folder / "items.csv").write_text("name,split,fold\na , train,0\nb (1),trian,1\nc,validation,\nd,test,2\n")
    for wanted in (0, "0"):
        assert load_data(folder, wanted, column="fold").names == ["a"]
    with pytest.raises(ValueError, match=r"split: expected one of \['0', '1', '2'\], got '3'"):
        load_data(folder, 3, column="fold")
    with pytest.warns(UserWarning, match=r"has items in 'trian' \(1 items\), which no command uses unless told to"):
        assert load_data(folder, "train").names == ["a"]


def test_home_paths_and_folders_called_synthetic(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "synthetic-mri")
    for data in ("~/synthetic-mri", "synthetic-mri", tmp_path / "synthetic-mri"):
        assert len(load_data(data)) == 4
    with pytest.raises(ValueError, match=r"a folder, a zip or one of synthetic, .*got 'synthetic-ct'"):
        load_data("synthetic-ct")
