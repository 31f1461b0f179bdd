"""Images and masks as they lie become a data set, or one report of all that is wrong with them."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts.own import import_data
from data_scripts.recipe import recipe
from rwkvlib.data import load_data
from rwkvlib.engine.config import load_config
from tests.data_scripts.raw_trees import HEIGHT, WIDTH, blob, picture, save, save_nifti


@pytest.fixture
def raw(tmp_path):
    """A function that writes an image, with a mask where one is given, and the folders of both."""

    def write(name, mask=None, suffix=".png", **options):
        save(picture(len(name)), tmp_path / f"raw/images/{name}.png")
        if mask is not None:
            file = tmp_path / f"raw/masks/{name}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(file, **options)
        return tmp_path / "raw/images", tmp_path / "raw/masks"

    return write


def palette(values):
    image = Image.fromarray(values, "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    return image


TWO = blob(value=1) + blob(6, 2)  # of two classes
RGB = np.stack([(TWO == 1) * 255, (TWO == 2) * 255, TWO * 0], -1).astype(np.uint8)
FORMS = {
    "0/255": (blob(), {}, blob(value=1)),
    "one bit": (blob().astype(bool), {}, blob(value=1)),
    "equal channels": (np.repeat(blob()[..., None], 3, 2), {}, blob(value=1)),
    "16 bit of 0 and 65535": (blob().astype(np.uint16) * 257, {}, blob(value=1)),
    "16-bit indices": (TWO.astype(np.uint16), {}, TWO),
    "a palette's indices": (palette(TWO), {}, TWO),
    "a palette's colours": (palette(TWO), dict(mapping=["ff0000=2", "#00FF00=1"]), np.array([0, 2, 1], np.uint8)[TWO]),
    "grey levels": (np.clip(blob().astype(int) + 9, 0, 200).astype(np.uint8), dict(threshold=100), blob(value=1)),
    "values": (TWO * 100, dict(mapping=["100=1", "200=2"]), TWO),
    "16-bit values": (TWO.astype(np.uint16) * 1000, dict(mapping=["1000=1", "2000=1"]), (TWO > 0).astype(np.uint8)),
    "a background of 255": (np.where(TWO, TWO, 255).astype(np.uint8), dict(mapping=["255=0", "1=1", "2=2"]), TWO),
    "colours": (RGB, dict(mapping=["ff0000=1", "00ff00=2"]), TWO),
}


@pytest.mark.parametrize(("mask", "options", "wanted"), FORMS.values(), ids=FORMS)
def test_masks_in_every_form(mask, options, wanted, raw, tmp_path):
    out = import_data(*raw("a", mask), tmp_path / "mine", **options)
    data = load_data(out)
    assert np.array_equal(data.masks[0], wanted) and np.array_equal(data.images[0], picture(1))
    names = json.loads((out / "dataset.json").read_text())["classes"]
    assert names == ["background", *(f"class_{i}" for i in range(1, wanted.max() + 1))]


def test_nested_folders_give_names_that_are_unique(raw, tmp_path):
    for name in ("one/a", "two/a", "two/long name"):
        folders = raw(name, blob(len(name) % 4))
    (tmp_path / "raw/images/__MACOSX").mkdir()
    (tmp_path / "raw/images/__MACOSX/x.png").write_bytes(b"\0")
    (tmp_path / "raw/images/notes.txt").write_text("none")
    data = load_data(import_data(*folders, tmp_path / "mine"))
    assert data.names == ["one_a", "two_a", "long_name"]
    assert [m.argmax() // WIDTH for m in data.masks] == [1, 1, 1]


def test_masks_of_another_folder_structure_and_letter_case_match_by_name(raw, tmp_path):
    raw("deep/IMG_1")
    save(blob(), tmp_path / "raw/masks/flat/img_1_Mask.tif")
    assert load_data(import_data(*raw("deep/IMG_1"), tmp_path / "mine", mask_suffix="_mask")).names == ["IMG_1"]


def test_one_report_names_all_that_is_wrong_and_nothing_is_written(raw, tmp_path):
    raw("good", blob())
    raw("lone")
    raw("short", blob()[:-1])
    raw("grey", blob() // 2)
    raw("coloured", RGB)
    raw("several", blob())
    raw("several", blob(), ".bmp")
    raw("none/cut", blob())
    (tmp_path / "raw/images/none/cut.png").write_bytes(b"GIF89a")
    save(blob(), tmp_path / "raw/masks/stray.png")
    (tmp_path / "meta.csv").write_text(
        "name,patient\n" + "".join(f"{n},7\n" for n in "good short.png grey coloured several cut more".split())
    )
    folders, columns = raw("good", blob()), tmp_path / "meta.csv"
    with pytest.raises(ValueError, match="images: 8 bad items beside 1 good ones") as caught:
        import_data(*folders, tmp_path / "mine", columns=columns)
    report = str(caught.value)
    for line in (
        "stray.png: is the mask of no image",
        "more: a row of",
        "lone.png: has no row in",
        "short.png: short.png is (12, 10), its mask short.png (12, 9)",
        "grey.png: grey.png has values 0, 127, expected 0 and 255 or classes 0 to 64: say",
        "coloured.png: coloured.png has colours (0, 0, 0), (0, 255, 0), (255, 0, 0): save",
        "--map VALUE=CLASS or RRGGBB=CLASS",
        "several.png: several.png has several masks: several.bmp, several.png",
        "none/cut.png: cut.png is not an image",
    ):
        assert line in report
    assert not list(tmp_path.glob("*mine*"))
    out = import_data(*folders, tmp_path / "mine", columns=columns, skip_bad=True)
    assert len(pd.read_csv(out / "bad_items.csv")) == 8
    assert pd.read_csv(out / "items.csv").to_dict("records") == [{"name": "good", "patient": 7}]
    with pytest.raises(FileExistsError, match=r"out: .*mine' exists"):
        import_data(*folders, tmp_path / "mine")


def test_a_long_report_is_counted(raw, tmp_path):
    raw("good", blob())
    for i in range(50):
        folders = raw(f"i{i:02d}")
    with pytest.raises(ValueError, match=r"(?s)50 bad items beside 1 good.*i39.png has no mask\n  and 10 more$"):
        import_data(*folders, tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mapping=["red=1"]), "map: expected VALUE=CLASS or RRGGBB=CLASS with a class of 0 to 254, got 'red=1'"),
        (dict(mapping=["1=1", "ff0000=2"]), "map: expected values or colours, each once, got 1=1 ff0000=2"),
        (dict(mapping=["1=1"], threshold=3), "map: expected either --map or --threshold"),
        (dict(mapping=["1=1", "2=3"], classes=["a"]), "classes: expected 3 names, got a"),
        (dict(mapping=["9=1"]), r"(?s)a.png has values 255, which --map does not name"),
        (
            dict(mask_suffix="_m"),
            "masks: none of 2 in .* is called as an image with '_m' at its end; the first of each ",
        ),
        ({}, r"map: 1 masks hold 0 and 255 alone \(a.png\), beside classes up to 2: say which 255 is"),
        (dict(classes=["a"]), "b.png has values 0, 1, 2, expected 0 and 255 or classes 0 to 1"),
    ],
    ids=range(8),
)
def test_arguments_that_do_not_fit_are_named(options, message, raw, tmp_path):
    raw("a", blob())
    with pytest.raises(ValueError, match=message):
        import_data(*raw("b", TWO), tmp_path / "mine", **options)
    assert not list(tmp_path.glob("*mine*"))


def test_folders_and_tables_that_are_not_there_are_named(raw, tmp_path):
    images, masks = raw("a", blob())
    with pytest.raises(FileNotFoundError, match="masks: expected a folder, got"):
        import_data(images, tmp_path / "nowhere", tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match=r"images: no image in .* with --mask-suffix"):
        import_data(images, images, tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="columns: no file"):
        import_data(images, masks, tmp_path / "mine", columns=tmp_path / "none.csv")
    (tmp_path / "twice.csv").write_text("name,x\na,1\na.png,2\n")
    with pytest.raises(ValueError, match=r"columns: expected one row for each name, .* has several of a"):
        import_data(images, masks, tmp_path / "mine", columns=tmp_path / "twice.csv")


def test_volumes_become_slices(raw, tmp_path):
    values = np.random.default_rng(0).integers(-1000, 1000, (WIDTH, HEIGHT, 3)).astype(np.int16)
    label = np.zeros(values.shape, np.uint8)
    label[2:5, 3:6, 1] = 2
    save_nifti(values, tmp_path / "ct/p1.nii.gz", (0.7, 0.8, 3.0))
    save_nifti(label, tmp_path / "ct/p1_seg.nii.gz", (0.7, 0.8, 3.0))
    (tmp_path / "meta.csv").write_text("name,patient\np1,12\n")
    options = dict(mask_suffix="_seg", hu=(-125.0, 275.0), columns=tmp_path / "meta.csv")
    out = import_data(tmp_path / "ct", tmp_path / "ct", tmp_path / "mine", **options)
    items = pd.read_csv(out / "items.csv")
    assert items["name"].tolist() == ["p1_slice_000", "p1_slice_001", "p1_slice_002"]
    assert items.iloc[1].to_dict() | {"name": 0} == {
        "name": 0, "volume": "p1", "slice": 1, "spacing_z": 3.0, "spacing_y": 0.8, "spacing_x": 0.7, "patient": 12
    }  # fmt: skip
    data = load_data(out)
    assert data.masks[1].sum() == 18 and not data.masks[[0, 2]].any()
    assert (data.images[0] == 255).mean() > 0.3, "clipped by the window"
    save(picture(1), tmp_path / "ct/flat.png")
    with pytest.raises(ValueError, match="images: expected images or volumes, found both"):
        import_data(tmp_path / "ct", tmp_path / "ct", tmp_path / "again", mask_suffix="_seg")


def test_a_recipe_needs_a_split_and_fits_the_classes(raw, tmp_path):
    for name in ("a", "b", "c"):
        folders = raw(name, TWO)
    out = import_data(*folders, tmp_path / "mine", classes=["edge, outer", "core"])
    with pytest.raises(
        ValueError, match=r"data: expected a column split .* python -m rwkvlib split .*mine --shares 7:1:2"
    ):
        recipe(out)
    items = pd.read_csv(out / "items.csv").assign(split=["train", "train", "test"])
    items.to_csv(out / "items.csv", index=False)
    (tmp_path / "mine.yaml").write_text(recipe(out))
    config = load_config(tmp_path / "mine.yaml")
    assert (config.num_classes, config.loss, config.batch_size, config.size) == (3, "synapse", 2, 32)
    assert config.data == str(out) and config.validation is None
