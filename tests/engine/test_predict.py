"""Prediction: any size, windows, flips, and files of every kind, good and bad."""

import builtins
import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from rwkvlib import create_model, predict
from rwkvlib.__main__ import main
from rwkvlib.data import stretch, synthetic_polyps
from rwkvlib.data.files import read_picture
from rwkvlib.data.pixels import normalise
from rwkvlib.engine import predict_files as module
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.predict_files import overlay, predict_files
from rwkvlib.models.folding import fold_batchnorm
from tests.conftest import TINY


class Threshold(torch.nn.Module):
    """A mask (one channel) or the first classes (several), pixel by pixel from the first channel's grey."""

    def __init__(self, channels=1):
        super().__init__()
        self.channels = channels
        self.seen = []
        self.p = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        grey = x[:, 0] * 0.229 + 0.485
        if self.channels == 1:
            return (grey - 0.5)[:, None]
        return -torch.stack([(grey * (self.channels - 1) - c).abs() for c in range(self.channels)], 1)


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 31), (5, 7)])
def test_predict_takes_any_size(size):
    model = create_model("rwkv_unet_t", **TINY).train()
    image = torch.rand(2, 3, *size)
    logits = predict(model, image)
    assert logits.shape == (2, 1, *size) and model.training
    if size == (16, 16):
        with torch.no_grad():
            torch.testing.assert_close(logits, model.eval()(normalise(image)))


@pytest.mark.parametrize("size", [(64, 48), (70, 33), (10, 90), (7, 5)])
def test_windows_cover_any_size(size):
    """A network that looks at one pixel at a time says the same of windows and of the whole."""
    model, image = Threshold(3), torch.rand(1, 3, *size)
    found = predict(model, image, window=32)
    assert set(model.seen) == {(32, 32)} and found.shape == (1, 3, *size)
    torch.testing.assert_close(found, predict(model, image), atol=1e-5, rtol=1e-5)


def test_windows_change_what_a_network_sees():
    torch.manual_seed(0)
    model, image = create_model("rwkv_unet_t", **TINY), torch.rand(1, 3, 64, 64)
    assert (predict(model, image) - predict(model, image, window=32)).abs().max() > 1e-4


def test_flips_make_the_prediction_of_a_mirror_image_the_mirrored_prediction():
    torch.manual_seed(0)
    model, image = create_model("rwkv_unet_t", **TINY), torch.rand(1, 3, 32, 48)
    for axis in (2, 3):
        mirrored = predict(model, image.flip(axis), flips=True).flip(axis)
        torch.testing.assert_close(mirrored, predict(model, image, flips=True), atol=1e-5, rtol=1e-4)
        assert (predict(model, image.flip(axis)).flip(axis) - predict(model, image)).abs().max() > 1e-4


def test_the_network_sees_the_size_that_is_asked_for():
    model = Threshold()
    assert predict(model, torch.rand(1, 3, 20, 50), size=32).shape == (1, 1, 20, 50) and model.seen == [(32, 32)]


def test_images_are_made_smaller_without_aliasing():
    seen = []

    class Seeing(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x[:, :1]

    image = torch.rand(1, 3, 40, 64)
    predict(Seeing(), image, size=16)
    smaller = torch.nn.functional.interpolate(image, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen[0], normalise(smaller))


def test_folding_batchnorm_changes_no_number():
    model = create_model("rwkv_unet_t", **TINY)
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        model(x)  # running statistics other than 0 and 1
        folded = fold_batchnorm(model.eval())
        torch.testing.assert_close(folded(x), model(x), atol=1e-5, rtol=1e-4)
    in_convolutions = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(in_convolutions) == 2, "those before the expansion of stages 1 and 2 stay"
    with pytest.raises(ValueError, match="model: expected a model in eval mode"):
        fold_batchnorm(model.train())


def test_predict_names_bad_input():
    model = create_model("rwkv_unet_t", **TINY)
    with pytest.raises(TypeError, match=r"image: expected a floating-point tensor, got torch\.uint8"):
        predict(model, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"image: expected shape \(B, C, H, W\), got \(3, 16, 16\)"):
        predict(model, torch.rand(3, 16, 16))
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="window: expected at least 16 pixels, got 8"):
        predict(model, image, window=8)
    with pytest.raises(ValueError, match="overlap: expected a share from 0 to below 1, got 1"):
        predict(model, image, window=16, overlap=1)
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        predict(model, image, size=0)


def grey(seed=0, shape=(21, 34)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_images_of_every_kind_give_their_mask(tmp_path):
    pixels = grey()
    pixels[:2] = [[0], [255]]  # so that the 16-bit image's range is the 8-bit one's
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "b (1).TIF", "deeper/a.bmp"):
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(np.dstack([pixels] * 4)).save(folder / "rgba.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(np.kron(pixels, np.ones((8, 8), np.uint8))).save(folder / "c.jpeg", quality=100)
    (folder / "notes.txt").write_text("no image")
    written = predict_files(Threshold(), [folder], out, progress=False)
    names = ["a.png", "b (1).png", "c.png", "deeper/a.png", "rgba.png", "sixteen.png"]
    assert sorted(p.relative_to(out).as_posix() for p in written) == names
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == names
    expected = np.where(pixels / 255 > 0.5, 255, 0)
    for name in names:
        mask = np.asarray(Image.open(out / name))
        if name == "c.png":  # JPEG loses a little
            assert np.mean(mask[4::8, 4::8] == expected) > 0.95 and mask.shape == (168, 272)
        else:
            assert np.mean(mask == expected) > (0.98 if name == "sixteen.png" else 0.9999)
    again = predict_files(Threshold(), [tmp_path], out, progress=False)
    assert len(again) == len(names), "results within the folder are no input"


def test_several_classes_are_saved_as_indices(tmp_path):
    Image.fromarray(np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "a.png")
    predict_files(Threshold(4), [tmp_path / "a.png"], tmp_path / "out", progress=False)
    assert set(np.unique(Image.open(tmp_path / "out" / "a.png"))) == {0, 1, 2, 3}


def test_overlays_colour_the_classes_and_nothing_else(tmp_path):
    pixels, labels = np.full((4, 6, 3), 100, np.uint8), np.zeros((4, 6), np.uint8)
    labels[1, :2], labels[2, :2] = 1, 2
    shown = overlay(pixels, labels)
    assert (shown[labels == 0] == 100).all() and (shown[labels > 0] != 100).any(-1).all()
    assert (shown[1, 0] != shown[2, 0]).any()
    Image.fromarray(synthetic_polyps(0, 40)[0]).save(tmp_path / "a.png")
    predict_files(Threshold(), [tmp_path / "a.png"], tmp_path / "out", with_overlay=True, progress=False)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a.png", "a_overlay.png"]
    assert Image.open(tmp_path / "out" / "a_overlay.png").size == (40, 40)


@pytest.fixture
def nibabel(require_package):
    return require_package("nibabel")


# Axes of a file to the patient's left or right, back or front, head or feet; and one with the slices first.
AFFINES = [np.diag(d) for d in [(1.0, 1, 3, 1), (-1.0, -1, 3, 1), (1.0, -1, -3, 1)]]
AFFINES.append(np.array([[0.0, 1, 0, 5], [0, 0, -1, 6], [3, 0, 0, 7], [0, 0, 0, 1]]))


@pytest.mark.parametrize("affine", AFFINES, ids=["RAS", "LPS", "RPI", "SRP"])
@pytest.mark.parametrize("as_stored", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volumes_mask_lies_on_its_own_grid(nibabel, tmp_path, affine, as_stored, suffix):
    values = np.random.default_rng(0).integers(-1000, 1000, (6, 18, 20)).astype(np.int16)
    file = tmp_path / f"ct{suffix}"
    nibabel.save(nibabel.Nifti1Image(values, affine), file)
    model = Threshold(3)
    (path,) = predict_files(
        model, [file], tmp_path / "out", hu=(-125, 275), as_stored=as_stored, with_overlay=True, progress=False
    )
    found = nibabel.load(path)
    assert path.name == "ct.nii.gz" and np.array_equal(found.affine, affine)
    labels = np.asarray(found.dataobj)
    unit = np.rint((np.clip(values, -125, 275) + 125) / 400 * 255) / 255
    assert labels.dtype == np.uint8 and np.array_equal(labels, np.rint(unit * 2))
    slices = 6 if affine[2, 0] and not as_stored else 20
    assert len(list((tmp_path / "out" / "ct_overlay").iterdir())) == slices


def test_a_volume_is_seen_as_it_is_prepared_for_training(nibabel, require_package, tmp_path):
    volumes = require_package("data_scripts.volumes")
    values = np.random.default_rng(0).normal(0, 300, (9, 8, 7))
    file = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(values, AFFINES[3]), file)
    for axial in (True, False):
        expected, _ = volumes.read_nifti(file, axial=axial)
        seen = read_picture(file, as_stored=not axial).pixels
        assert np.array_equal(seen[..., 0], stretch(expected)) and seen.shape[-1] == 3


def test_unreadable_files_are_named_and_the_others_masks_kept(nibabel, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "whole.png"):
        Image.fromarray(grey()).save(folder / name)
    content = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.nii.gz").write_bytes(gzip.compress(b"x" * 500)[:20])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), folder / "time.nii")
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), folder / "nan.nii")
    pages = [Image.fromarray(grey(i)) for i in range(2)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="path: 6 of 8 files could not be read") as error:
        predict_files(Threshold(), [folder], out, progress=False)
    for part in ("cut.png: ", "text.jpg: ", "cut.nii.gz: ", "time.nii: expected 3 dim", "nan.nii: values that are not"):
        assert part in str(error.value)
    assert "pages.tif: expected one image, got 2" in str(error.value)
    assert sorted(f.name for f in out.iterdir()) == ["a.png", "whole.png"]


@pytest.mark.parametrize("names", [["a.png", "a_overlay.png"], ["a.nii.gz", "a_overlay/000.png"]])
def test_an_overlay_does_not_take_the_place_of_a_mask(names, tmp_path):
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(ValueError, match="several files would be written to a_overlay"):
        predict_files(Threshold(), [tmp_path / "in"], tmp_path / "out", with_overlay=True, progress=False)
    assert not (tmp_path / "out").exists()


def test_bad_paths_are_named_before_anything_is_written(tmp_path):
    for name in ("a.png", "a.bmp"):
        Image.fromarray(grey()).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for paths, kind, message in [
        (["a.png", "nothing"], FileNotFoundError, "path: no file or folder"),
        (["a.png", "a.txt"], ValueError, r"path: expected one of \.png, .* got 'a\.txt'"),
        (["empty"], FileNotFoundError, "path: no image"),
        (["a.png", "a.bmp"], ValueError, r"path: several files would be written to a\.png"),
    ]:
        with pytest.raises(kind, match=message):
            predict_files(Threshold(), [tmp_path / p for p in paths], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_missing_nibabel_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").write_bytes(b"")
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "nibabel":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"nibabel: needed to read a\.nii\.gz; pip install nibabel"):
        predict_files(Threshold(), [tmp_path / "a.nii.gz"], tmp_path / "out", progress=False)


def test_a_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    Image.fromarray(grey()).save(tmp_path / "a.png")

    def full(self, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        predict_files(Threshold(), [tmp_path / "a.png"], tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").iterdir())


def test_the_command_writes_masks_and_says_what_is_wrong(nibabel, tmp_path, capsys):
    checkpoint, out = tmp_path / "m.safetensors", tmp_path / "out"
    save_checkpoint(checkpoint, create_model("rwkv_unet_t", **TINY), dict(model="rwkv_unet_t", overrides=TINY, size=32))
    Image.fromarray(synthetic_polyps(0, 53)[0]).save(tmp_path / "a.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 24, 2), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    files = [str(tmp_path / "a.png"), str(tmp_path / "ct.nii.gz")]
    for options in ([], ["--native", "--flips"], ["--window", "32"], ["--hu"], ["--hu", "-160", "240"]):
        main(["predict", str(checkpoint), *files, "--out", str(out), "--overlay", "--overwrite", *options])
        assert Image.open(out / "a.png").size == (53, 53) and nibabel.load(out / "ct.nii.gz").shape == (20, 24, 2)
        assert "2 masks in" in capsys.readouterr().out
    main(["predict", "synthetic", files[0], "--out", str(out), "--overwrite"])
    for arguments, message in [
        (["nowhere", files[0]], "no file 'nowhere'"),
        ([str(checkpoint), str(tmp_path / "b.png")], "path: no file or folder"),
        ([str(checkpoint), files[0], "--hu", "5"], "hu: expected LOW HIGH or nothing, got 1"),
        ([str(checkpoint), files[0], "--hu", "5", "1"], "hu: expected HIGH above LOW"),
        ([str(checkpoint), files[0], "--window", "3"], "window: expected at least 16"),
    ]:
        with pytest.raises(SystemExit) as error:
            main(["predict", *arguments, "--out", str(tmp_path / "other")])
        assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], dict(size=32, window=None, flips=False, hu=None, as_stored=False, with_overlay=False, batch_size=8)),
        (["--native", "--flips"], dict(size=None, window=None, flips=True)),
        (["--window", "32"], dict(size=None, window=32)),
        (["--hu"], dict(hu=(-125, 275))),
        (["--hu", "-160", "240", "--as-stored"], dict(hu=(-160, 240), as_stored=True)),
        (["--overlay", "--overwrite", "--batch-size", "3"], dict(with_overlay=True, overwrite=True, batch_size=3)),
    ],
    ids=str,
)
def test_the_command_hands_its_options_on(options, expected, tmp_path, monkeypatch):
    checkpoint, given = tmp_path / "m.safetensors", {}
    save_checkpoint(checkpoint, create_model("rwkv_unet_t", **TINY), dict(model="rwkv_unet_t", overrides=TINY, size=32))
    monkeypatch.setattr(module, "predict_files", lambda *args, **kwargs: given.update(kwargs) or [])
    main(["predict", str(checkpoint), "a.png", "--out", "out", *options])
    assert {key: given[key] for key in expected} == expected


def test_files_are_predicted_with_the_options_of_predict(tmp_path, monkeypatch):
    Image.fromarray(grey(0)).save(tmp_path / "a.png")
    given = []
    monkeypatch.setattr(module, "predict", lambda model, x, **options: given.append(options) or x[:, :1])
    predict_files(Threshold(), [tmp_path / "a.png"], tmp_path / "out", flips=True, size=32, window=48, progress=False)
    assert given == [dict(flips=True, size=32, window=48)]


# Nothing of the user's is written onto


def inbox(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names or ("p0.png", "p1.png")):
        Image.fromarray(grey(i)).save(folder / name)
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("given", ["folder", "files", "another name"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_written_onto(given, overwrite, tmp_path):
    folder = inbox(tmp_path / "in")
    paths, out = {"folder": [folder], "files": sorted(folder.iterdir())}.get(given, [folder]), folder
    if given == "another name":  # of the same folder
        out = tmp_path / "link"
        out.symlink_to(folder)
    before = contents(folder)
    with pytest.raises(ValueError, match=r"out: the input '.*p0\.png' would be written onto; choose another folder"):
        predict_files(Threshold(), paths, out, progress=False, overwrite=overwrite)
    assert contents(folder) == before


def test_a_volume_beside_itself_is_safe(nibabel, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 2), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"out: the input '.*scan\.nii\.gz' would be written onto"):
        predict_files(Threshold(), [tmp_path / "scan.nii.gz"], tmp_path, progress=False, overwrite=True)
    assert contents(tmp_path) == before


def test_an_overlay_is_not_written_onto_an_input(nibabel, tmp_path):
    """One that is given beside the folder of results, so that no two results have one name."""
    inbox(tmp_path / "out", "a_overlay.png")
    inbox(tmp_path / "in", "a.png")
    before = contents(tmp_path)
    paths = [tmp_path / "in/a.png", tmp_path / "out/a_overlay.png"]
    with pytest.raises(ValueError, match="would be written"):
        predict_files(Threshold(), paths, tmp_path / "out", with_overlay=True, progress=False, overwrite=True)
    assert contents(tmp_path) == before


def test_what_is_there_is_replaced_only_on_request(tmp_path):
    """Ground truth, a corrected mask, a result of an earlier run: all alike."""
    folder, out = inbox(tmp_path / "data/images"), inbox(tmp_path / "data/masks")
    before = contents(out)
    with pytest.raises(FileExistsError, match=r"out: '.*p0\.png' and 1 more exist already; .*--overwrite"):
        predict_files(Threshold(), [folder], out, progress=False)
    assert contents(out) == before
    assert len(predict_files(Threshold(), folder, out, progress=False, overwrite=True)) == 2
    masks = contents(out)
    assert masks != before
    with pytest.raises(FileExistsError):
        predict_files(Threshold(), [folder], out, progress=False)
    predict_files(Threshold(), [folder], out, progress=False, overwrite=True)
    assert contents(out) == masks


@pytest.mark.parametrize("where", [".", "in", "in/out", "in/deeper"])
def test_results_may_go_above_beside_and_below_the_inputs(where, nibabel, tmp_path):
    """The results of one run are no input of the next, wherever they are."""
    (tmp_path / "in/deeper").mkdir(parents=True)
    folder = inbox(tmp_path / "in", "a.jpg", "deeper/b.jpg")
    nibabel.save(nibabel.Nifti1Image(grey(0, (8, 8, 2)).astype(np.int16), np.eye(4)), folder / "ct.nii")
    out = tmp_path / where
    options = dict(with_overlay=True, progress=False)
    expected = ["a.png", "ct.nii.gz", "deeper/b.png"] if where != "in/deeper" else ["a.png", "ct.nii.gz"]
    first = predict_files(Threshold(), [folder], out, **options)
    again = predict_files(Threshold(), [folder], out, overwrite=True, **options)
    assert [p.relative_to(out).as_posix() for p in first] == expected and again == first


def test_an_overlay_of_fewer_slices_leaves_no_old_ones(nibabel, tmp_path):
    values = np.zeros((8, 8, 3), np.int16)
    values[:, :, :2] = 200
    for shown in (2, 1):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])), tmp_path / "a.nii")
        predict_files(
            Threshold(2), [tmp_path / "a.nii"], tmp_path / "o", hu=(0, 100), with_overlay=True, progress=False,
            overwrite=True,
        )  # fmt: skip
        assert sorted(p.name for p in (tmp_path / "o/a_overlay").iterdir()) == [f"{i:03d}.png" for i in range(shown)]
        values[:, :, 1] = 0


# Folders as they are


def test_links_are_followed_and_hidden_folders_left_out(tmp_path, capsys):
    store, folder = inbox(tmp_path / "store"), inbox(tmp_path / "in", "x.png")
    inbox(folder / ".ipynb_checkpoints", "x-checkpoint.png")
    inbox(folder / "__MACOSX", "x.png")
    (folder / "monday").symlink_to(store)
    (store / "back").symlink_to(folder)
    for name in ("y.webp", "z.WEBP", "scan.dcm", "readme"):
        (folder / name).write_bytes(b"")
    written = predict_files(Threshold(), [folder], tmp_path / "out")
    names = [p.relative_to(tmp_path / "out").as_posix() for p in written]
    assert names == ["x.png", "monday/p0.png", "monday/p1.png"]
    assert "left out: 4 files of other kinds (.dcm 1, .webp 2, none 1)" in capsys.readouterr().err
    for file in (folder / "x.png", folder / "monday"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"path: no image .* but 4 files of other kinds \(\.dcm 1"):
        predict_files(Threshold(), [folder], tmp_path / "more")


def test_a_name_that_is_too_long_does_not_end_the_run(tmp_path):
    longest = inbox(tmp_path / "in", "x" * 251 + ".png", "y" * 251 + ".bmp", "z.png")
    assert len(predict_files(Threshold(), [longest], tmp_path / "out", progress=False)) == 3
    with pytest.raises(ValueError, match=r"path: 2 of 3 files .*: x+\.png: the name of its result is too long; y"):
        predict_files(Threshold(), [longest], tmp_path / "shown", with_overlay=True, progress=False)
    assert (tmp_path / "shown/z_overlay.png").exists()


def test_home_and_single_paths_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    inbox(tmp_path / "in")
    assert len(predict_files(Threshold(), "~/in", "~/out", progress=False)) == 2 and (tmp_path / "out/p0.png").exists()


def test_a_turned_photograph_gets_the_mask_that_viewers_show(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    upright = np.zeros((48, 80), np.uint8)
    upright[:, :40] = 255
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.jpg", exif=tags)
    predict_files(Threshold(), [tmp_path / "a.jpg"], tmp_path / "out", progress=False)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a.png")), upright)


def test_names_that_moved_are_still_here():
    from rwkvlib.data import files, pixels
    from rwkvlib.engine import predict as old
    from rwkvlib.engine import predict_files as new
    from rwkvlib.models import folding

    for place, names in (
        (files, ("IMAGES", "VOLUMES", "Picture", "read_picture")),
        (pixels, ("MEAN", "STD", "batches", "normalise")),
        (new, ("COLOURS", "find_files", "overlay", "predict_files")),
        (folding, ("fold_batchnorm",)),
    ):
        for name in names:
            assert getattr(old, name) is getattr(place, name)
    with pytest.raises(AttributeError):
        _ = old.nothing


def test_a_zoo_of_formats(tmp_path):
    """Whatever cameras, scanners and programs write; what cannot be read is named, and costs the others nothing."""
    folder = tmp_path / "in"
    folder.mkdir()
    colour = np.dstack([grey(i) for i in range(3)])
    rgb = Image.fromarray(colour)
    kinds = {"RGB": ".JPG", "CMYK": ".jpeg", "1": ".PNG", "LA": ".png", "RGBA": ".Tif", "P": ".BMP", "L": ".bmp"}
    kinds |= {"YCbCr": ".TIFF", "LAB": ".tif"}
    for mode, suffix in kinds.items():
        image = Image.new("LAB", rgb.size) if mode == "LAB" else rgb.convert(mode)
        image.save(folder / f"{mode}{suffix}")
    Image.fromarray(grey().astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(grey().astype(np.int32)).save(folder / "int32.tif")
    Image.fromarray(np.full((21, 34), 700, np.uint16)).save(folder / "constant.png")
    for width, height in ((1, 1), (17, 400), (90, 3)):
        Image.fromarray(grey(0, (height, width))).save(folder / f"{width}x{height}.png")
    rgb.save(folder / "Bild 1.v2 ä.png")
    rgb.save(folder / "two views.jpg", format="MPO", save_all=True, append_images=[rgb])
    good = {f.stem: Image.open(f).size for f in folder.iterdir()}
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>log in</html>")
    (folder / "cut.jpg").write_bytes((folder / "RGB.JPG").read_bytes()[:300])
    Image.fromarray(np.full((5, 5), np.nan, np.float32)).save(folder / "nan.tif")
    with pytest.raises(ValueError, match="path: 4 of 21 files could not be read") as error:
        predict_files(Threshold(), [folder], tmp_path / "out", progress=False)
    assert all(name in str(error.value) for name in ("empty.png", "page.jpg", "cut.jpg", "nan.tif"))
    assert {f.stem: Image.open(f).size for f in (tmp_path / "out").iterdir()} == good
