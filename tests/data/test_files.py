"""One reader: depth, orientation, masks of every kind, volumes."""

import io

import numpy as np
import pytest
from PIL import Image

from rwkvlib.data import stretch
from rwkvlib.data.files import open_picture, picture_pixels, read_labels, read_picture, read_volume


def stored(image, format="PNG", **options):
    """An image as the file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    buffer.seek(0)
    return buffer


GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (GREY.astype(np.uint16) * 16, "PNG"),  # a detector's 12 bits
        (GREY.astype(np.uint16) * 257, "PNG"),
        (GREY.astype(np.uint16) * 257, "TIFF"),
        (GREY.astype(np.int32) * 70_000, "TIFF"),
        (GREY.astype(np.float32) / 255, "TIFF"),
        (GREY.astype(np.float32) - 1000, "TIFF"),
    ],
    ids=["12 bits", "16 bits", "16 bits, TIFF", "32 bits", "float of 0 to 1", "float below 0"],
)
def test_more_than_eight_bits_are_stretched_and_never_saturate(values, format):
    pixels = picture_pixels(open_picture(stored(Image.fromarray(values), format)))
    assert pixels.shape == (20, 30, 3) and np.array_equal(pixels[..., 0], stretch(values))
    assert np.abs(pixels[..., 1].astype(int) - GREY).max() <= 3, "0.5 % of the pixels at either end are clipped"
    assert len(np.unique(pixels)) > 200


def test_eight_bits_are_taken_as_they_are():
    dark = GREY // 8
    for image in (Image.fromarray(dark), Image.fromarray(np.dstack([dark] * 3))):
        assert np.array_equal(picture_pixels(open_picture(stored(image)))[..., 2], dark)


def png(values):
    """Colours of 16 bits, which Pillow does not write."""
    import struct
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in [*chunks, (b"IEND", b"")]:
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return io.BytesIO(content)


def test_colours_of_sixteen_bits_follow_the_rule_or_are_refused():
    colours = np.dstack([GREY, GREY.T.reshape(20, 30), 255 - GREY]).astype(np.uint16)
    pixels = picture_pixels(open_picture(png(colours * 257)))
    assert np.abs(pixels.astype(int) - colours).max() <= 3
    with pytest.raises(ValueError, match="colours of 16 bits that use 12 bits or fewer: save them with 8 bits"):
        picture_pixels(open_picture(png(colours * 16)))
    with pytest.raises(ValueError, match="16 bits a channel: save one channel"):
        read_labels(png(colours * 0 + 1))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "16 bits"])
def test_pictures_stand_upright(orientation, kind, tmp_path):
    upright = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 50, np.ones((8, 8), np.uint8))
    image = Image.fromarray(upright.astype(np.uint16) * 257 if kind == "16 bits" else upright)
    if orientation > 1:
        image = image.transpose(BACK[orientation])
    options = dict(quality=100) if kind == "JPEG" else {}
    file = stored(image, "PNG" if kind == "16 bits" else kind, exif=exif(orientation), **options)
    found = open_picture(file)
    assert found.info["turned"] == (orientation > 1) or kind == "TIFF"
    pixels = picture_pixels(found)
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels[..., 0].astype(int) - (stretch(upright) if kind == "16 bits" else upright)).max() < 10


def test_a_broken_exif_part_costs_no_picture():
    file = stored(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0no such thing")
    assert picture_pixels(open_picture(file)).shape == (20, 30, 3)


MASK = (GREY > 128).astype(np.uint8)


def palette(values):
    image = Image.fromarray(values).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image


def test_masks_of_every_kind_give_their_values():
    alpha = np.full_like(MASK, 255)
    for image in (
        Image.fromarray(MASK),
        Image.fromarray(MASK.astype(bool)),
        Image.fromarray(MASK.astype(np.uint16)),
        Image.fromarray(np.dstack([MASK] * 3)),
        Image.fromarray(np.dstack([MASK] * 3 + [alpha])),
        Image.fromarray(np.dstack([MASK, alpha])),
        palette(MASK),
    ):
        assert np.array_equal(read_labels(stored(image)), MASK), image.mode
    for values in (MASK.astype(np.float32), MASK.astype(np.int32)):
        assert np.array_equal(read_labels(stored(Image.fromarray(values), "TIFF")), MASK)
    assert np.array_equal(read_labels(stored(Image.fromarray(MASK.astype(np.uint16) * 65535))), MASK * 255)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.dstack([MASK * 255, MASK * 0, MASK * 0]), r"colours \(0, 0, 0\), \(255, 0, 0\): save one channel"),
        (
            np.dstack([GREY, MASK, MASK]),
            r"colours .* and \d+ more: save one channel of class indices",
        ),
        (MASK.astype(np.uint16) * 300, "values 0 to 300: save class indices"),
        (np.dstack([MASK * 0, MASK * 255]), "a shape in the transparency"),
    ],
    ids=["red", "colours", "300", "alpha"],
)
def test_what_is_no_mask_is_named_with_its_values(image, message):
    with pytest.raises(ValueError, match=message):
        read_labels(stored(Image.fromarray(image)))


def test_fractions_are_no_labels():
    with pytest.raises(ValueError, match=r"expected whole numbers as labels, got 0\.5"):
        read_labels(stored(Image.fromarray(MASK.astype(np.float32) / 2), "TIFF"))


# Volumes


@pytest.fixture
def nibabel(require_package):
    return require_package("nibabel")


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1), (6, 5, 4, 1, 1), (6, 5)])
def test_axes_of_length_one_are_squeezed(nibabel, shape, tmp_path):
    values = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    affine = np.diag([-0.7, 0.8, 3, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii")
    picture = read_picture(tmp_path / "a.nii")
    depth = 4 if len(shape) > 2 else 1
    assert picture.pixels.shape == (depth, 5, 6, 3)
    picture.save(np.arange(depth * 30, dtype=np.uint8).reshape(depth, 5, 6), tmp_path / "m.nii.gz")
    mask = nibabel.load(tmp_path / "m.nii.gz")
    assert mask.shape == shape[:3] and np.allclose(mask.affine, affine)
    assert read_volume(tmp_path / "m.nii.gz").values.ravel().tolist() == list(range(depth * 30))
    if depth > 1:
        assert read_volume(tmp_path / "a.nii").spacing == pytest.approx((3, 0.8, 0.7))


def test_a_mask_says_that_it_is_one(nibabel, tmp_path):
    """A viewer that honours the scan's display range would show labels as black."""
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16), np.eye(4))
    image.header["cal_max"], image.header["cal_min"], image.header["descrip"] = 900, 200, b"CT abdomen"
    nibabel.save(image, tmp_path / "a.nii")
    read_picture(tmp_path / "a.nii").save(np.ones((4, 5, 6), np.uint8), tmp_path / "m.nii")
    header = nibabel.load(tmp_path / "m.nii").header
    assert header["cal_max"] == header["cal_min"] == 0 and b"rwkvlib" in bytes(header["descrip"])
    assert header.get_intent()[0] == "label"


def test_colours_and_complex_numbers_are_named(nibabel, tmp_path):
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    with pytest.raises(ValueError, match=r"rgb\.nii: expected one real number a voxel, got colours"):
        read_picture(tmp_path / "rgb.nii")
    with pytest.raises(ValueError, match=r"complex\.nii: expected one real number a voxel, got complex64"):
        read_picture(tmp_path / "complex.nii")
