"""What comes out of prediction and evaluation: probabilities, thresholds, averages, sheets, masks made elsewhere."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rwkvlib import create_model, load_checkpoint, predict
from rwkvlib.__main__ import main
from rwkvlib.data import SegmentationData, synthetic_polyps
from rwkvlib.data.files import is_result, read_volume
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.predict import Averaged, to_labels, to_probabilities
from rwkvlib.engine.predict_files import overlay, predict_files
from rwkvlib.engine.threshold import dice_by_threshold
from tests.conftest import TINY


class Grey(torch.nn.Module):
    """Its logit is that of the image's first channel as a probability; several classes share it."""

    def __init__(self, channels=1, factor=1.0):
        super().__init__()
        self.channels, self.p = channels, torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        share = (x[:, :1] * 0.229 + 0.485).clamp(1e-4, 1 - 1e-4)
        return self.p * torch.cat([share.logit() * (i + 1) for i in range(self.channels)], 1)


def save_grey(path, seed=0, shape=(8, 12)):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_an_average_has_the_mean_of_the_probabilities(channels):
    torch.manual_seed(0)
    models, x = [Grey(channels, f) for f in (0.3, 1.0, 200.0)], torch.rand(2, 3, 4, 4)
    expected = torch.stack([to_probabilities(model(x)) for model in models]).mean(0)
    found = Averaged(models)(x)
    assert found.isfinite().all()
    torch.testing.assert_close(to_probabilities(found), expected)
    with pytest.raises(ValueError, match="models: expected some of the same in_channels"):
        Averaged([create_model("rwkv_unet_t", **TINY), create_model("rwkv_unet_t", **TINY, in_channels=1)])


def test_an_average_pads_for_all_its_models():
    models = [Grey(), Grey()]
    models[0].divisor, models[1].divisor = 6, 4
    seen = []
    models[0].register_forward_pre_hook(lambda model, given: seen.append(tuple(given[0].shape[2:])))
    assert predict(Averaged(models), torch.rand(1, 3, 20, 40)).shape == (1, 1, 20, 40) and seen == [(24, 48)]


def test_a_mask_is_above_its_threshold():
    p = torch.tensor([0.1, 0.4, 0.5, 0.6, 0.9]).view(1, 1, 1, 5)
    assert to_labels(p.logit()).flatten().tolist() == [0, 0, 0, 1, 1]
    assert to_labels(p.logit(), 0.3).flatten().tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="threshold: expected a probability between 0 and 1, got 1"):
        to_labels(p, 1.0)
    with pytest.raises(ValueError, match="threshold: expected a model with one output channel, got one with 2"):
        to_labels(p.expand(1, 2, 1, 5), 0.3)


@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_of_images_and_volumes_lie_beside_the_masks(channels, require_package, tmp_path):
    nibabel = require_package("nibabel")
    pixels = save_grey(tmp_path / "a.png")
    voxels = np.random.default_rng(1).integers(0, 256, (6, 5, 3)).astype(np.int16)
    voxels[0, 0, 0], voxels[0, 0, 1] = 0, 255
    affine = np.diag([-1.0, 1, 2, 1])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "v.nii.gz")
    out = tmp_path / "out"
    paths = [tmp_path / "a.png", tmp_path / "v.nii.gz"]
    predict_files(Grey(channels), paths, out, probabilities=True, hu=(0, 255), progress=False)
    names = ["a.png", "a_probabilities.tif", "v.nii.gz", "v_probabilities.nii.gz"]
    assert sorted(file.name for file in out.iterdir()) == names and all(map(is_result, out.iterdir()))
    with Image.open(out / "a_probabilities.tif") as image:
        assert image.n_frames == channels
        first = np.asarray(image)
        assert first.shape == (8, 12) and first.dtype == np.float32
    volume = nibabel.load(out / "v_probabilities.nii.gz")
    assert volume.shape == ((6, 5, 3) if channels == 1 else (6, 5, 3, 3)) and (volume.affine == affine).all()
    if channels == 1:
        np.testing.assert_allclose(first, np.clip(pixels / 255, 1e-4, 1 - 1e-4), atol=1e-4)
        np.testing.assert_allclose(volume.get_fdata(), np.clip(voxels / 255, 1e-4, 1 - 1e-4), atol=1e-4)
    else:
        np.testing.assert_allclose(volume.get_fdata().sum(-1), 1, atol=1e-5)
        assert (volume.get_fdata().argmax(-1) == nibabel.load(out / "v.nii.gz").get_fdata()).all()
    with pytest.raises(FileExistsError, match="a_probabilities"):
        (out / "a.png").unlink()
        predict_files(Grey(channels), paths[:1], out, probabilities=True, progress=False)


def test_contours_leave_the_inside_and_alpha_is_the_opacity():
    pixels, labels = np.full((7, 7, 3), 100, np.uint8), np.zeros((7, 7), np.uint8)
    labels[1:6, 1:6] = 1
    outline = (overlay(pixels, labels, 1.0, contour=True) != 100).any(-1)
    assert outline.sum() == 16 and not outline[2:5, 2:5].any() and not outline[labels == 0].any()
    assert (overlay(pixels, labels, 0.0) == 100).all()
    assert (overlay(pixels, labels, 1.0)[1, 1] == (230, 159, 0)).all()
    with pytest.raises(ValueError, match="alpha: expected an opacity from 0 to 1, got 2"):
        predict_files(Grey(), [], "out", alpha=2)


def test_the_threshold_with_the_best_dice_is_found():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8).repeat(3, axis=-1)
    masks = (images[..., 0] / 255 > 0.3).astype(np.uint8)
    data = SegmentationData(images, masks, pd.DataFrame({"name": list("abc")}))
    found = dice_by_threshold(Grey(), data, batch_size=2)
    assert max(found, key=found.get) == 0.3 and found[0.3] == 1 and found[0.5] < 0.95
    half = (images[..., 0] > 127) & (masks > 0)
    expected = np.mean([2 * h.sum() / (h.sum() + m.sum()) for h, m in zip(half, masks, strict=True)])
    assert found[0.5] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="model: expected one with one output channel, got one with 3"):
        dice_by_threshold(Grey(3), data)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, create_model("rwkv_unet_t", **TINY), dict(model="rwkv_unet_t", overrides=TINY, size=32))
    return path


def test_a_stored_threshold_is_used_and_the_original_kept(checkpoint, tmp_path, monkeypatch, capsys):
    before, new, given = checkpoint.read_bytes(), tmp_path / "with.safetensors", {}
    main(["threshold", str(checkpoint), "synthetic:4", "--out", str(new)])
    meta = load_checkpoint(new)[1]
    assert 0 < meta["threshold"] < 1 and checkpoint.read_bytes() == before
    for a, b in zip(load_checkpoint(new)[0].parameters(), load_checkpoint(checkpoint)[0].parameters(), strict=True):
        assert torch.equal(a, b)
    monkeypatch.setattr("rwkvlib.engine.predict_files.predict_files", lambda *a, **options: given.update(options) or [])
    for options, expected in (([], meta["threshold"]), (["--threshold", "0.35"], 0.35)):
        main(["predict", str(new), "a.png", "--out", "out", *options])
        assert given["threshold"] == expected
    main(["evaluate", str(new), "synthetic:4", "--threshold", "0.35", "--out", str(tmp_path / "scores")])
    assert json.loads((tmp_path / "scores/summary.json").read_text())["threshold"] == 0.35
    with pytest.raises(SystemExit, match="2"):
        main(["threshold", str(checkpoint), "synthetic:4", "--out", str(new)])
    assert "exists already" in capsys.readouterr().err


def test_checkpoints_that_disagree_are_not_averaged(checkpoint, tmp_path, monkeypatch, capsys):
    other, given = tmp_path / "other.safetensors", []
    meta = dict(model="rwkv_unet_t", overrides=TINY, size=64)
    save_checkpoint(other, create_model("rwkv_unet_t", **TINY), meta)
    monkeypatch.setattr(
        "rwkvlib.engine.predict_files.predict_files", lambda model, *a, **options: given.append(model) or []
    )
    main(["predict", str(checkpoint), "a.png", "--with", str(checkpoint), "--with", str(checkpoint), "--out", "out"])
    assert len(given[0].models) == 3
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(checkpoint), "a.png", "--with", str(other), "--out", "out"])
    assert "with: expected size 32 as in" in capsys.readouterr().err


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(3):
        image, mask = synthetic_polyps(i, 40)
        Image.fromarray(image).save(folder / f"images/{i}.png")
        Image.fromarray(mask).save(folder / f"masks/{i}.png")
    (folder / "items.csv").write_text("name,split,patient\n0,test,a\n1,test,a\n2,test,b\n")
    return folder


def test_the_worst_cases_and_the_masks_are_written(data, checkpoint, tmp_path):
    out = tmp_path / "scores"
    main(["evaluate", str(checkpoint), str(data), "--native", "--worst", "2", "--save-masks", "--out", str(out)])
    with Image.open(out / "worst.png") as sheet:
        assert sheet.size == (3 * 196, 2 * 212) and len(sheet.getcolors(10**6)) > 50
    assert sorted(file.name for file in (out / "masks").iterdir()) == ["0.png", "1.png", "2.png"]
    again = tmp_path / "again"
    main(["evaluate", "--masks", str(out / "masks"), str(data), "--out", str(again)])
    assert (again / "cases.csv").read_text() == (out / "cases.csv").read_text()
    summary = json.loads((again / "summary.json").read_text())
    assert summary["masks"] == "masks" and summary["unit"] == "patient" and "checkpoint" not in summary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "masks: no file in "),
        ("extra", "are of no item: 9"),
        ("size", "masks: expected 1 x 40 x 40 for 1, as the data have, got 1 x 8 x 12"),
        ("values", "masks: expected class indices 0 to 1 for 2, got 0, 7"),
        ("twice", "got several for 0"),
        ("folder", "masks: no folder"),
    ],
)
def test_masks_that_do_not_fit_are_named(change, message, data, capsys):
    masks = data / "masks"
    made = data.parent / "made"
    made.mkdir()
    for i in range(3):
        Image.fromarray(np.asarray(Image.open(masks / f"{i}.png")) * np.uint8(255)).save(made / f"{i}.png")
    if change == "missing":
        (made / "1.png").unlink()
    elif change == "extra":
        (made / "2.png").rename(made / "9.png")
        Image.open(made / "1.png").save(made / "2.png")
    elif change == "size":
        save_grey(made / "1.png")
    elif change == "values":
        Image.fromarray((np.arange(1600).reshape(40, 40) % 2 * 7).astype(np.uint8)).save(made / "2.png")
    elif change == "twice":
        Image.open(made / "1.png").save(made / "0.bmp")
    with pytest.raises(SystemExit) as error:
        main(["evaluate", "--masks", str(made / "no" if change == "folder" else made), str(data)])
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_a_volume_in_one_file_is_scored_slice_by_slice(require_package, tmp_path):
    from rwkvlib.engine.evaluate import evaluate_masks

    nibabel = require_package("nibabel")
    truth = (np.random.default_rng(0).random((4, 6, 5)) > 0.5).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(truth.transpose(2, 1, 0)[::-1, ::-1].copy(), np.eye(4)), tmp_path / "v.nii.gz")
    read = read_volume(tmp_path / "v.nii.gz").values.astype(np.uint8)
    items = pd.DataFrame({"name": list("abcd"), "volume": "v", "slice": range(4)})
    data = SegmentationData(read[..., None].repeat(3, axis=-1), read, items)
    table = evaluate_masks(tmp_path, [data], 2)
    assert table["dice"].tolist() == [1] and table["name"].tolist() == ["v"]
