"""Pictures without labels: sources, shares, crops."""

import numpy as np
import pytest
import torch
from PIL import Image

from rwkvlib.data.pictures import PictureStream


@pytest.fixture
def sources(tmp_path):
    """A folder of blue pictures, two of them below another folder, and a data set with green train and red test."""
    for name in ("a.png", "deep/b.JPG", "deep/c.tif"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 40), (0, 0, 200)).save(tmp_path / "photos" / name)
    (tmp_path / "set/images").mkdir(parents=True)
    for name, colour in (("x", (0, 200, 0)), ("y", (200, 0, 0))):
        Image.new("RGB", (50, 60), colour).save(tmp_path / f"set/images/{name}.png")
    (tmp_path / "set/items.csv").write_text("name,split\nx,train\ny,test\n")
    return tmp_path


def test_shares_are_kept_and_no_test_image_is_shown(sources):
    stream = PictureStream({str(sources / "photos"): 1, str(sources / "set"): 3}, 400, 16)
    colours = np.array([stream[i]["image"].mean((1, 2)).argmax() for i in range(len(stream))])
    assert len(stream) == 400 and not (colours == 0).any(), "red is the test split"
    assert (colours == 1).mean() == pytest.approx(0.75, abs=0.08)
    assert {stream[i]["name"] for i in range(40)} == {"photos", "set"}


def test_an_item_depends_on_seed_and_number_alone():
    streams = [
        PictureStream({"synthetic": 1, "synthetic-formula": 1}, n, 32, seed) for n, seed in ((4, 0), (9, 0), (9, 1))
    ]
    short, long, other = ([s[i]["image"] for i in range(4)] for s in streams)
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True)) and not torch.equal(long[0], other[0])
    assert len({x.numpy().tobytes() for x in long}) == 4 and long[0].shape == (3, 32, 32)
    assert 0 <= min(x.min() for x in long) and max(x.max() for x in long) <= 1
    assert streams[1].sha256() == PictureStream({"synthetic": 2, "synthetic-formula": 2}, 9, 32).sha256()
    assert streams[1].sha256() != PictureStream({"synthetic": 1, "synthetic-formula": 2}, 9, 32).sha256()


def test_crops_take_a_fifth_of_the_picture_at_least(tmp_path):
    ramp = np.linspace(0, 255, 100).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (100, 1)), np.tile(ramp[:, None], (1, 100)), np.zeros((100, 100), np.uint8)], -1)
    Image.fromarray(picture).save(tmp_path / "ramp.png")
    stream = PictureStream({str(tmp_path): 1}, 200, 16)
    areas = [np.prod([np.ptp(stream[i]["image"][c].numpy()) for c in (0, 1)]) for i in range(200)]
    assert 0.12 < min(areas) < 0.3 and max(areas) > 0.75


def test_sources_that_are_none_are_named(sources):
    (sources / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no pictures .* in '.*empty'"):
        PictureStream({str(sources / "empty"): 1}, 4, 16)
    with pytest.raises(FileNotFoundError, match=r"got '.*nowhere'"):
        PictureStream({str(sources / "nowhere"): 1}, 4, 16)
    with pytest.raises(ValueError, match="single pictures, got 'synthetic-abdomen'"):
        PictureStream({"synthetic-abdomen": 1}, 4, 16)
    with pytest.raises(ValueError, match="shares above 0"):
        PictureStream({"synthetic": 0}, 4, 16)
    (sources / "photos/bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png' does not decode"):
        PictureStream({str(sources / "photos"): 1}, 4, 16)
