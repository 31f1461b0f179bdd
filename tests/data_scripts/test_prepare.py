"""Raw downloads become the project's layout, whole and right, or nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts.entry import BadItem
from data_scripts.prepare import prepare
from data_scripts.registry import REGISTRY, find
from data_scripts.splits import load_splits
from rwkvlib.data import load_data
from tests.data_scripts.raw_trees import HEIGHT, WIDTH, blob, build, ct, picture, save, save_nifti, truncate

NAMES = sorted(REGISTRY)


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A complete raw tree of each set, built when first asked for."""
    built = {}

    def tree(name):
        if name not in built:
            built[name] = build(name, tmp_path_factory.mktemp(name) / "raw")
        return built[name]

    return tree


@pytest.mark.parametrize("name", NAMES)
def test_a_complete_raw_tree_becomes_a_complete_data_set(name, trees, tmp_path, kvasir_split):
    raw = trees(name)
    if name == "kvasir_seg":
        kvasir_split(raw)
    out = prepare(find(name), raw, tmp_path / "out")
    assert not (out / "bad_items.csv").exists()
    items = pd.read_csv(out / "items.csv", dtype={"name": str, "volume": str})
    card = json.loads((out / "dataset.json").read_text())
    slices = {"synapse": 3, "acdc": 2 * 2}.get(name, 1)
    more = {"isic2017": 1}.get(name, 0)  # the official test image
    assert len(items) == (20 if name == "kvasir_seg" else len(load_splits(name)) * slices) + more
    assert set(items["split"]) == {"train", "test"} | (set() if name == "synapse" else {"validation"}) | (
        {"official_test"} if name == "isic2017" else set()
    )
    assert card["items"] == len(items) and sum(card["splits"].values()) == len(items)
    data = load_data(out, "train")
    assert data.images.shape[1:] == ((80, 96, 3) if name == "kvasir_seg" else (HEIGHT, WIDTH, 3))
    assert data.masks.max() == len(card["classes"]) - 1
    if name not in ("synapse", "acdc", "kvasir_seg"):
        known = load_splits(name).set_index("name")["split"]
        assert items.set_index("name")["split"].drop("ISIC_9999999", errors="ignore").to_dict() == known.to_dict()


def test_images_and_masks_arrive_unchanged(small, tmp_path):
    entry, raw = small
    out = prepare(entry, raw, tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(out / "images/2.png")), picture(2))
    assert np.array_equal(np.asarray(Image.open(out / "masks/2.png")), blob(value=1))
    items = pd.read_csv(out / "items.csv")
    assert list(items) == ["name", "sequence", "split", "split_image"] and len(items) == 4


def test_jpeg_files_are_copied_byte_for_byte(trees, tmp_path, kvasir_split):
    raw = trees("kvasir_seg")
    kvasir_split(raw)
    out = prepare(find("kvasir_seg"), raw, tmp_path / "out")
    assert (out / "images/cju3.jpg").read_bytes() == (raw / "Kvasir-SEG/images/cju3.jpg").read_bytes()


def test_size_resizes_images_and_masks(small, tmp_path):
    entry, raw = small
    out = prepare(entry, raw, tmp_path / "out", size=6)
    mask = np.asarray(Image.open(out / "masks/1.png"))
    assert Image.open(out / "images/1.png").size == (6, 6) == mask.shape and set(np.unique(mask)) == {0, 1}


def test_resizing_invents_no_class(tmp_path, knows_only):
    """Between the classes 0 and 7 lie six others, which no mask may get."""
    knows_only(["1"])
    raw = tmp_path / "raw"
    mask = 7 * np.random.default_rng(0).integers(0, 2, (20, 26), dtype=np.uint8)
    save(np.repeat(mask[..., None], 3, 2), raw / "images/1.png")
    save(mask, raw / "masks/1.png")
    (raw / "items.csv").write_text("name\n1\n")
    out = prepare(find("cvc_clinicdb"), raw, tmp_path / "out", size=9)
    assert set(np.unique(Image.open(out / "masks/1.png"))) == {0, 7}
    assert len(np.unique(Image.open(out / "images/1.png"))) > 2, "images are antialiased"


# Masks as they come


@pytest.mark.parametrize(
    "mask",
    [
        blob(value=255),
        blob(value=1),
        np.repeat(blob()[..., None], 3, 2),
        np.dstack([blob(), blob(), blob(), np.full_like(blob(), 255)]),
        np.dstack([blob(), blob(), blob(), np.zeros_like(blob())]),  # foreground that is transparent
        np.clip(blob().astype(int) + np.random.default_rng(0).integers(-20, 20, blob().shape), 0, 255).astype(np.uint8),
        blob().astype(bool),
    ],
    ids=["0/255", "0/1", "three channels", "RGBA", "RGBA, transparent", "lossy", "one bit"],
)
def test_masks_of_every_kind_are_read_alike(mask, small, tmp_path):
    entry, raw = small
    (raw / "Ground Truth/3.tif").unlink()
    save(mask, raw / "Ground Truth/3.png")
    out = prepare(entry, raw, tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(out / "masks/3.png")), blob(value=1))


def test_several_masks_of_one_image_are_united(tmp_path, knows_only):
    knows_only(["benign_(1)", "normal_(1)"])
    for label in ("benign", "malignant", "normal"):
        (tmp_path / "raw/Dataset_BUSI_with_GT" / label).mkdir(parents=True)
    folder = tmp_path / "raw/Dataset_BUSI_with_GT/benign"
    save(picture(0), folder / "benign (1).png")
    save(blob(1), folder / "benign (1)_mask.png")
    save(blob(6), folder / "benign (1)_mask_1.png")
    save(picture(1), folder.parent / "normal/normal (1).png")
    save(np.zeros_like(blob()), folder.parent / "normal/normal (1)_mask.png")
    out = prepare(find("busi"), tmp_path / "raw", tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(out / "masks/benign_(1).png")), blob(1, 1) | blob(6, 1))
    assert not np.asarray(Image.open(out / "masks/normal_(1).png")).any()  # normal tissue may be empty


def test_glands_of_every_number_are_foreground(trees, tmp_path):
    out = prepare(find("glas"), trees("glas"), tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(out / "masks/testA_7.png")), blob(value=1) | blob(6, 1))


# Bad items


def size_mismatch(raw):
    save(blob()[:-1], raw / "Ground Truth/3.tif")


def not_an_image(raw):
    (raw / "Original/3.tif").write_text("a page that says: please log in")


def truncated_mask(raw):
    (raw / "Ground Truth/3.tif").unlink()
    truncate(save(blob(), raw / "Ground Truth/3.png"))


def truncated_image(raw):
    (raw / "Original/3.tif").unlink()
    truncate(save(np.kron(picture(3), np.ones((9, 9, 1), np.uint8)), raw / "Original/3.png"))


def same_name_twice(raw):
    save(picture(9), raw / "Original/3.png")


BAD = {
    "a missing mask": (lambda raw: (raw / "Ground Truth/3.tif").unlink(), "3.tif has no mask"),
    "another size": (size_mismatch, r"3.tif is (12, 10), its mask 3.tif (12, 9)"),
    "a truncated image": (truncated_image, "3.png does not decode"),
    "a truncated mask": (truncated_mask, "3.png does not decode"),
    "no image": (not_an_image, "3.tif is not an image"),
    "an empty mask": (lambda raw: save(blob() * 0, raw / "Ground Truth/3.tif"), "the mask 3.tif is empty"),
    "a missing image": (lambda raw: (raw / "Original/3.tif").unlink(), "is in the committed split, but not among"),
    "an image too much": (
        lambda raw: (save(picture(0), raw / "Original/900.tif"), save(blob(), raw / "Ground Truth/900.tif")),
        "is not in the committed split",
    ),
    "two masks": (lambda raw: save(blob(), raw / "Ground Truth/3.png"), "3.tif has several masks: 3.png, 3.tif"),
    "a name twice": (same_name_twice, "a second item is called 3"),
}


@pytest.mark.parametrize(("spoil", "problem"), BAD.values(), ids=BAD)
def test_a_bad_item_stops_the_run_with_a_report_or_is_left_out_on_request(spoil, problem, small, tmp_path):
    entry, raw = small
    spoil(raw)
    with pytest.raises(ValueError, match=r"raw: \d bad items beside \d good ones.*--skip-bad"):
        prepare(entry, raw, tmp_path / "out")
    report = pd.read_csv(tmp_path / "out.bad_items.csv")
    assert report["problem"].str.contains(problem, regex=False).any(), report
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))

    out = prepare(entry, raw, tmp_path / "out", skip_bad=True)
    assert pd.read_csv(out / "bad_items.csv")["problem"].tolist() == report["problem"].tolist()
    names = set(pd.read_csv(out / "items.csv", dtype=str)["name"])
    assert {"1", "2", "4"} <= names <= {"1", "2", "3", "4"}
    assert {f for f in files(out) if f.startswith("masks")} == {f"masks/{n}.png" for n in names}
    assert load_data(out).names == sorted(names)


def test_hidden_and_foreign_files_are_no_items(small, tmp_path):
    entry, raw = small
    for name in (".DS_Store", "Thumbs.db", "._1.tif", "readme.txt"):
        (raw / "Original" / name).write_bytes(b"\0")
    assert len(load_data(prepare(entry, raw, tmp_path / "out"))) == 4


def test_nothing_good_is_an_error_even_when_bad_items_are_skipped(small, tmp_path):
    entry, raw = small
    for file in (raw / "Ground Truth").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="raw: no good item"):
        prepare(entry, raw, tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_wrong_folders_are_named(small, tmp_path):
    entry, raw = small
    with pytest.raises(FileNotFoundError, match="raw: expected a folder, laid out as Original"):
        prepare(entry, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="raw: expected one folder 'Original'"):
        prepare(entry, tmp_path / "empty", tmp_path / "out")
    shutil.copytree(raw, tmp_path / "two/a")
    shutil.copytree(raw, tmp_path / "two/b")
    with pytest.raises(FileNotFoundError, match="found 2 of them"):
        prepare(entry, tmp_path / "two", tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match=r"out: .* exists"):
        prepare(entry, raw, tmp_path / "there")


def test_an_error_in_the_middle_leaves_nothing(small, tmp_path, monkeypatch):
    entry, raw = small
    monkeypatch.setattr(
        "data_scripts.prepare.fingerprint", lambda image: (_ for _ in ()).throw(OSError(28, "No space"))
    )
    with pytest.raises(OSError, match="No space"):
        prepare(entry, raw, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


def test_a_killed_run_leaves_no_half_data_set_and_the_next_one_succeeds(trees, tmp_path):
    raw, out = trees("isic2017"), tmp_path / "out"
    command = [sys.executable, "-m", "data_scripts", "prepare", "isic2017", "--raw", str(raw), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=os.getcwd())
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.partial/masks/*")):  # it has begun to write
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists() and (tmp_path / ".out.partial").exists()
    prepare(find("isic2017"), raw, out)
    assert len(load_data(out, "test")) == 150 and not (tmp_path / ".out.partial").exists()


# Volumes


def test_ct_is_windowed_relabelled_and_turned(trees, tmp_path):
    out = prepare(find("synapse"), trees("synapse"), tmp_path / "out")
    data = load_data(out, "test")
    image, label = ct(3, list(load_splits("synapse")["volume"]).index("0022"))
    rows = data.items[data.items["volume"] == "0022"]
    assert list(rows["slice"]) == [0, 1, 2] and list(rows["name"])[1] == "0022_slice_001"
    assert rows[["spacing_z", "spacing_y", "spacing_x"]].iloc[0].tolist() == [3.0, 0.8, 0.7]
    # x points right in the file, so the patient's right side is at the array's end, and comes first on the page;
    # y points to the back, as a page's rows do.
    expected = ((np.clip(image, -125, 275) + 125) / 400 * 255).round()[::-1].transpose(2, 1, 0)
    assert np.array_equal(data.images[rows.index][..., 0], expected)
    organs = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8}
    assert np.array_equal(
        data.masks[rows.index], np.vectorize(lambda x: organs.get(x, 0))(label)[::-1].transpose(2, 1, 0)
    )


def test_transunet_arrays_are_accepted(tmp_path, knows_only, require_package):
    h5py = require_package("h5py")
    knows_only(["0005", "0001"])
    raw = tmp_path / "raw"
    (raw / "train_npz").mkdir(parents=True)
    (raw / "test_vol_h5").mkdir()
    rng = np.random.default_rng(0)
    slices, labels = rng.random((4, HEIGHT, WIDTH), np.float32), rng.integers(0, 9, (4, HEIGHT, WIDTH)).astype(float)
    for i in (0, 1):
        np.savez(raw / f"train_npz/case0005_slice{i:03d}.npz", image=slices[i], label=labels[i])
    with h5py.File(raw / "test_vol_h5/case0001.npy.h5", "w") as file:
        file["image"], file["label"] = slices[2:], labels[2:]
    out = prepare(find("synapse"), raw, tmp_path / "out")
    items = pd.read_csv(out / "items.csv", dtype={"volume": str})
    assert items[["name", "volume", "slice", "split"]].to_numpy().tolist() == [
        ["0005_slice_000", "0005", 0, "train"],
        ["0005_slice_001", "0005", 1, "train"],
        ["0001_slice_000", "0001", 0, "test"],
        ["0001_slice_001", "0001", 1, "test"],
    ]
    data = load_data(out)
    assert np.array_equal(data.images[..., 0], (slices * 255).round()) and np.array_equal(data.masks, labels)


def test_cardiac_slices_keep_their_patient_frame_and_spacing(trees, tmp_path):
    data = load_data(prepare(find("acdc"), trees("acdc"), tmp_path / "out"))
    assert data.items["patient"].max() == 100  # the second test set is left out
    row = data.items[data.items["name"] == "patient074_frame12_slice_001"].iloc[0]
    assert (row["patient"], row["frame"], row["slice"], row["split"]) == (74, 12, 1, "train")
    assert (row["spacing_z"], row["spacing_y"], row["spacing_x"]) == (10.0, 1.6, 1.5)
    image, label = ct(2, 74)
    low, high = np.percentile(image, (0.5, 99.5))
    expected = (np.clip((image - low) / (high - low), 0, 1) * 255).round()[:, :, 1].T
    assert np.array_equal(data.images[row.name][..., 0], expected)
    assert np.array_equal(data.masks[row.name], (label % 4)[:, :, 1].T)


def bad_volume(kind, folder):
    """Spoils volume 0002 of two; returns what the report must say."""
    image, label = folder / "img/img0002.nii.gz", folder / "label/label0002.nii.gz"
    if kind == "missing":
        label.unlink()
        return "no file label0002.nii.gz"
    if kind == "truncated":
        truncate(image)
        return "img0002.nii.gz does not decode"
    if kind == "no NIfTI":
        image.write_bytes(b"log in first")
        return "img0002.nii.gz does not decode"
    if kind == "size":
        save_nifti(ct(4, 0)[1], label, (1, 1, 1))
        return "the image is (3, 10, 12), the label (4, 10, 12)"
    if kind == "label":
        save_nifti(ct(3, 0)[1] + 40, label, (1, 1, 1))
        return "expected labels 0 to 8, got [40,"
    if kind == "four dimensions":
        save_nifti(np.zeros((4, 4, 4, 2), np.int16), image, (1, 1, 1))
        return "expected 3 dimensions"
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["missing", "truncated", "no NIfTI", "size", "label", "four dimensions"])
def test_a_bad_volume_is_left_out_whole(kind, tmp_path, knows_only):
    knows_only(["0001", "0002"])
    for volume in ("0001", "0002"):
        image, label = ct(3, int(volume))
        save_nifti(image, tmp_path / f"raw/img/img{volume}.nii.gz", (1, 1, 1))
        save_nifti(label, tmp_path / f"raw/label/label{volume}.nii.gz", (1, 1, 1))
    problem = bad_volume(kind, tmp_path / "raw")
    with pytest.raises(ValueError, match="bad items"):
        prepare(find("synapse"), tmp_path / "raw", tmp_path / "out")
    out = prepare(find("synapse"), tmp_path / "raw", tmp_path / "out", skip_bad=True)
    assert pd.read_csv(out / "bad_items.csv")["problem"].str.contains(problem, regex=False).any()
    assert load_data(out).names == [f"0001_slice_{i:03d}" for i in range(3)]
    assert {f for f in files(out) if "0002" in f} == set()


def one_volume(folder, knows_only, label=None, affine=None):
    """A raw tree of one volume, with another label or another place of it."""
    import nibabel

    knows_only(["0001"])
    image, own = ct(3, 1)
    save_nifti(image, folder / "img/img0001.nii.gz", (0.7, 0.8, 3.0))
    (folder / "label").mkdir(exist_ok=True)
    place = np.diag([0.7, -0.8, 3.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(own if label is None else label(own), place), folder / "label/label0001.nii.gz")
    return folder


def moved(offset):
    affine = np.diag([0.7, -0.8, 3.0, 1.0])
    affine[2, 3] = offset
    return affine


@pytest.mark.parametrize("affine", [np.eye(4), moved(60), moved(0.2)], ids=["no affine", "60 mm away", "0.2 mm away"])
def test_a_label_that_lies_elsewhere_than_its_image_is_bad(affine, tmp_path, knows_only):
    raw = one_volume(tmp_path / "raw", knows_only, affine=affine)
    with pytest.raises(
        ValueError, match=r"label0001\.nii\.gz lies elsewhere than img0001\.nii\.gz, by up to .* mm"
    ) as error:
        prepare(find("synapse"), raw, tmp_path / "out")
    assert "[0.7, 0.0, 0.0, 0.0]" in str(error.value) and str([float(x) for x in affine[2]]) in str(error.value)


def test_rounding_of_an_affine_is_no_difference(tmp_path, knows_only):
    raw = one_volume(tmp_path / "raw", knows_only, affine=moved(0.01))
    assert len(load_data(prepare(find("synapse"), raw, tmp_path / "out"))) == 3


def test_labels_near_whole_numbers_are_rounded_before_organs_are_mapped(tmp_path, knows_only):
    raw = one_volume(tmp_path / "raw", knows_only)
    expected = load_data(prepare(find("synapse"), raw, tmp_path / "expected")).masks
    noise = np.random.default_rng(0).uniform(-9e-4, 9e-4, ct(3, 1)[1].shape)
    raw = one_volume(tmp_path / "raw", knows_only, label=lambda own: (own + noise).astype(np.float32))
    found = load_data(prepare(find("synapse"), raw, tmp_path / "found")).masks
    assert np.array_equal(found, expected) and set(np.unique(found)) == set(range(9))


def test_labels_between_whole_numbers_are_bad(tmp_path, knows_only):
    raw = one_volume(tmp_path / "raw", knows_only, label=lambda own: own + np.float32(0.25))
    with pytest.raises(ValueError, match=r"label0001\.nii\.gz: expected whole numbers as labels, got 0\.25, 1\.25"):
        prepare(find("synapse"), raw, tmp_path / "out")


def test_fractions_in_arrays_are_bad(tmp_path):
    from data_scripts.volumes import read_arrays

    np.savez(tmp_path / "a.npz", image=np.zeros((4, 4)), label=np.full((4, 4), 0.5))
    with pytest.raises(BadItem, match=r"a\.npz: expected whole numbers as labels, got 0\.5"):
        read_arrays(tmp_path / "a.npz")


# Images as cameras, detectors and users make them


def test_a_turned_jpeg_is_not_copied_as_it_is(tmp_path, knows_only):
    knows_only(["1"])
    upright, tags = np.zeros((40, 60, 3), np.uint8), Image.Exif()
    upright[:10, :20] = 255
    tags[0x0112] = 3
    turned = np.ascontiguousarray(upright[::-1, ::-1])
    save(turned, tmp_path / "raw/Original/1.jpg", quality=95, exif=tags)
    save(upright[..., 0], tmp_path / "raw/Ground Truth/1.png")
    data = load_data(prepare(find("cvc_clinicdb"), tmp_path / "raw", tmp_path / "out"))
    assert data.images[data.masks == 1].mean() > 240 and data.images[data.masks == 0].mean() < 10
    assert files(tmp_path / "out" / "images") == {"1.png"}


def test_sixteen_bits_are_stretched(small, tmp_path):
    entry, raw = small
    grey = picture(3)[..., 0].astype(np.uint16)
    save(grey * 16, raw / "Original/3.tif")
    out = prepare(entry, raw, tmp_path / "out")
    pixels = np.asarray(Image.open(out / "images/3.png").convert("L"))
    assert pixels.min() == 0 and pixels.max() == 255 and len(np.unique(pixels)) > 50


def test_a_raw_tree_behind_links(small, tmp_path):
    entry, raw = small
    (tmp_path / "linked").mkdir()
    for name in ("Original", "Ground Truth"):
        (tmp_path / "linked" / name).symlink_to(raw / name)
    (raw / "Original/again").symlink_to(raw)
    assert len(load_data(prepare(entry, tmp_path / "linked", tmp_path / "out"))) == 4


def test_own_images_in_a_known_layout_are_told_what_to_do(trees, tmp_path):
    """The committed fingerprints know none of the tree's noise."""
    with pytest.raises(ValueError, match=r"none of the 20 items is in the committed split of Kvasir-SEG .*items\.csv"):
        prepare(find("kvasir_seg"), trees("kvasir_seg"), tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["nibabel", "h5py", "pooch"])
def test_a_missing_package_is_one_line(missing, tmp_path, monkeypatch, capsys):
    from data_scripts.__main__ import main

    (tmp_path / "raw/img").mkdir(parents=True)
    (tmp_path / "raw/label").mkdir()
    (tmp_path / "raw/img/img0001.nii.gz").write_bytes(b"")
    if missing == "h5py":
        (tmp_path / "raw/test_vol_h5").mkdir()
        (tmp_path / "raw/train_npz").mkdir()
        (tmp_path / "raw/test_vol_h5/case0001.npy.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, missing, None)
    name = "kvasir_seg" if missing == "pooch" else "synapse"
    options = ["--download"] if missing == "pooch" else []
    with pytest.raises(SystemExit) as error:
        main(["prepare", name, "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), *options])
    assert error.value.code == 2 and f"error: {missing}: needed" in capsys.readouterr().err


def test_values_that_are_not_finite_are_bad():
    from data_scripts.volumes import slices
    from rwkvlib.data import window

    image = np.full((1, 2, 2), np.nan)
    with pytest.raises(BadItem, match="not finite"):
        list(slices("a", image, np.zeros((1, 2, 2)), window, 1))


# Sets that are in the project's layout already


def test_a_set_in_the_project_s_layout_gets_the_committed_split(small, tmp_path):
    entry, raw = small
    first = prepare(entry, raw, tmp_path / "first")
    items = pd.read_csv(first / "items.csv", dtype=str)
    items.assign(split="train", note="mine").drop(columns="split_image").to_csv(first / "items.csv", index=False)
    again = prepare(entry, first, tmp_path / "again")
    table = pd.read_csv(again / "items.csv", dtype=str)
    assert table["split"].tolist() == items["split"].tolist() and table["note"].tolist() == ["mine"] * 4
    shutil.make_archive(str(tmp_path / "zipped"), "zip", first)
    zipped = prepare(entry, tmp_path / "zipped.zip", tmp_path / "third")
    assert files(zipped) == files(again)
