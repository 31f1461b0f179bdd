"""The one reader of pictures and volumes, for training, audit, preparation, evaluation and prediction alike.

Depth: 8 bits a channel are taken as they are; more (12, 16 and 32 bits, floating point) go from their own 0.5th to
their 99.5th percentile onto 0 ... 255, as `stretch` does, or by a window in Hounsfield units where one is given.

Channels: a network of three sees RGB, grey pictures with their value in all three; one of one channel sees grey
pictures. For others there are NumPy's arrays (H, W, C), pictures with transparency, and TIFF files with a page for each
channel.

Orientation: pictures stand upright, as their EXIF tag says. Slices of NIfTI volumes lie as radiologists look at them:
from the feet to the head, in each the patient's front at the top and right side at the left; or as stored.

Pillow and nibabel are imported where they are needed: this module comes with ``import rwkvlib``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .window import stretch, window

if TYPE_CHECKING:
    from PIL import Image

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii", ".nii.gz")
ARRAYS = (".npy", ".npz")
# In the Software field of the PNG and TIFF files that prediction writes, and in descrip of its volumes.
PRODUCT = "rwkvlib predict"
ORIENTATION, SOFTWARE = 0x0112, 0x0131  # tags of EXIF and TIFF


def suffix_of(name: str) -> str | None:
    """The suffix, in lower case, by which a file's name says that this module reads it; None for other kinds."""
    return next((s for s in (*VOLUMES[::-1], *IMAGES, *ARRAYS) if name.lower().endswith(s)), None)


def _to_bytes(values: np.ndarray, hu: tuple[float, float] | None) -> np.ndarray:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    return stretch(values) if hu is None else window(values, *hu)


# ---------------------------------------------------------------------------------------------------------- pictures


def open_picture(source: Path | BinaryIO) -> Image.Image:
    """One picture, decoded and upright. Its ``info`` says whether it was ``turned``, and whether it has ``deep``
    colours: 16 bits a channel, of which Pillow gives the upper 8.

    Raises: ValueError for several pictures in one file; else whatever Pillow raises.
    """
    from PIL import Image, ImageOps

    image = Image.open(source)
    try:
        # MPO: a camera's JPEG with a preview or a second view behind the picture.
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise ValueError(f"expected one image, got {image.n_frames} in one file")
        deep = len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile)
        turned = image.getexif().get(ORIENTATION, 1) != 1
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except BaseException:
        image.close()
        raise
    image.info |= {"deep": deep, "turned": turned}
    return image


def picture_pixels(image: Image.Image, hu: tuple[float, float] | None = None) -> np.ndarray:
    """An image of `open_picture` as (H, W, 3) uint8, by this module's rule for its depth.

    Raises: ValueError for values that are not finite, and colours of which Pillow keeps too little.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _to_bytes(np.asarray(image), hu)[..., None].repeat(3, axis=-1)
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if not image.info.get("deep"):
        return pixels
    if pixels.max() < 16:
        raise ValueError("colours of 16 bits that use 12 bits or fewer: save them with 8 bits a channel")
    return stretch(pixels)


def read_array(source: Path | BinaryIO) -> np.ndarray:
    """The one array of a file of NumPy. Raises: ValueError for several; else whatever NumPy raises."""
    found = np.load(source, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found:
        if len(found.files) != 1:
            raise ValueError(f"expected one array, got {len(found.files)}: {', '.join(found.files)}")
        return found[found.files[0]]


def as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(..., C) pixels as (..., channels): grey ones as RGB, RGB ones that are grey as one channel.

    Raises: ValueError for any other number.
    """
    own = pixels.shape[-1]
    if own == 1 and channels == 3:
        return pixels.repeat(3, axis=-1)
    if own == 3 and channels == 1 and (pixels == pixels[..., :1]).all():
        return pixels[..., :1]
    if own != channels:
        what = "colours" if own == 3 else f"{own} channel{'s' * (own > 1)}"
        raise ValueError(
            f"in_channels: expected {channels}, got {what}; set in_channels to {own}, or convert the images"
        )
    return pixels


def read_channels(
    source: Path | BinaryIO, name: str, channels: int | None = 3, hu: tuple[float, float] | None = None
) -> tuple[np.ndarray, bool]:
    """An image as (H, W, channels) uint8, by this module's rules for depth and channels, and whether it was turned.

    Args:
        name: of the file, whose suffix tells arrays from pictures.
        channels: None: three to look at, whatever the file has.

    Raises: ValueError for another number of channels, and as `picture_pixels`; else whatever Pillow or NumPy raises.
    """
    if name.lower().endswith(ARRAYS):
        values = read_array(source)
        values = values[..., None] if values.ndim == 2 else values
        if values.ndim != 3 or values.dtype.kind not in "uif" or 0 in values.shape:
            raise ValueError(f"expected numbers (H, W) or (H, W, C), got {values.dtype} {values.shape}")
        return _of_pages(np.moveaxis(values, -1, 0), channels, hu), False
    from PIL import Image, ImageSequence

    if channels not in (1, 3):
        with Image.open(source) as image:
            bands = len(image.getbands())
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                return _of_pages([np.asarray(page) for page in ImageSequence.Iterator(image)], channels, hu), False
        if not isinstance(source, Path):
            source.seek(0)
        if channels is not None and bands == channels:
            with open_picture(source) as image:
                return np.asarray(image), image.info["turned"]
    with open_picture(source) as image:
        pixels, turned = picture_pixels(image, hu), image.info["turned"]
    if channels not in (None, 1, 3) and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]  # for the message
    return as_channels(pixels, channels or 3), turned


def _of_pages(pages: Any, channels: int | None, hu: tuple[float, float] | None) -> np.ndarray:
    """(H, W) channels of any depth one above the other; of None three of them, to look at."""
    if len(shapes := {page.shape for page in pages}) > 1 or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"expected pages of one channel and size, got {', '.join(map(str, sorted(shapes)))}")
    pixels = np.stack([page if page.dtype == np.uint8 else _to_bytes(page, hu) for page in pages], -1)
    if channels is None and pixels.shape[2] not in (1, 3):
        pixels = np.pad(pixels[..., :3], ((0, 0), (0, 0), (0, max(0, 3 - pixels.shape[2]))))
    return as_channels(pixels, channels or 3)


def read_labels(source: Path | BinaryIO, wide: bool = False) -> np.ndarray:
    """A mask's values as they are, (H, W) uint8: of 1, 8 or 16 bits, a palette's indices, or colours that are grey.
    65535 of a mask with no other value beside 0 is 255. Transparency is ignored. `wide` has whole numbers of any size
    and leaves 65535 alone.

    Raises: ValueError for anything else, with the values and the remedy; else whatever Pillow raises.
    """
    image = open_picture(source)
    if image.mode in ("1", "L", "P"):
        return np.asarray(image, dtype=np.uint8)
    if image.mode == "PA":
        return np.asarray(image.getchannel(0))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = whole_labels(np.asarray(image))
        if wide:
            return values
        if np.isin(values, (0, 65535)).all():
            values = np.minimum(values, 255)
        if values.min() < 0 or values.max() > 255:
            raise ValueError(f"values {values.min()} to {values.max()}: save class indices of 0 to 254")
        return values.astype(np.uint8)
    if image.info["deep"]:
        raise ValueError("colours of 16 bits a channel: save one channel of class indices")
    pixels = np.asarray(image.convert("RGBA"))
    colours = pixels[..., :3]
    if (colours != colours[..., :1]).any():
        found = np.unique(colours.reshape(-1, 3), axis=0).tolist()
        shown = ", ".join(str(tuple(c)) for c in found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        raise ValueError(f"colours {shown}: save one channel of class indices, 0 for background")
    if np.ptp(colours) == 0 and np.ptp(pixels[..., 3]) > 0:
        raise ValueError("one colour, and a shape in the transparency: save that as one channel of class indices")
    return np.ascontiguousarray(colours[..., 0])


def whole_labels(values: np.ndarray) -> np.ndarray:
    """Labels as whole numbers: floating-point ones within 1e-3 of one are rounded. Raises ValueError for others."""
    if values.dtype.kind != "f":
        return values
    rounded = np.rint(values)
    wrong = values[~(np.abs(values - rounded) <= 1e-3)]  # NaN, too
    if wrong.size:
        found = ", ".join(f"{v:g}" for v in np.unique(wrong)[:5])
        raise ValueError(f"expected whole numbers as labels, got {found}: resample labels by nearest neighbour")
    return rounded.astype(np.int64)


# ----------------------------------------------------------------------------------------------------------- volumes


@dataclass
class Volume:
    """A NIfTI file's voxels, turned, and what turns them back."""

    values: np.ndarray  # (D, H, W)
    spacing: tuple[float, float, float]  # along D, H, W in mm
    image: Any  # nibabel's, as stored
    as_stored: bool

    @property
    def affine(self) -> np.ndarray:
        """From the file's voxels to millimetres, (4, 4)."""
        return self.image.affine

    def save(self, labels: np.ndarray, path: Path) -> None:
        """Writes (D, H, W) uint8 labels, or (D, H, W, ...) float32 estimates, on the file's own grid. Display range,
        description and intent are their own: a viewer that honours a scan's ``cal_max`` would show labels as black."""
        import nibabel

        back = slice(None) if self.as_stored else slice(None, None, -1)
        found = labels[:, back, back].transpose(2, 1, 0, *range(3, labels.ndim))
        if not self.as_stored:
            codes = nibabel.orientations
            way = codes.ornt_transform(codes.axcodes2ornt("RAS"), codes.io_orientation(self.affine))
            found = codes.apply_orientation(found, way)
        found = np.ascontiguousarray(found).reshape(self.image.shape[:3] + found.shape[3:])
        header = self.image.header.copy()
        header.set_data_dtype(labels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        header["descrip"] = PRODUCT.encode()
        header.set_intent("label" if labels.dtype == np.uint8 else "estimate")
        nibabel.save(type(self.image)(found, self.affine, header), path)


def read_volume(file: Path, as_stored: bool = False) -> Volume:
    """Reads a NIfTI file: (x, y, z), or (x, y) as one slice; further axes must have length 1.

    Raises: ValueError for other shapes, colours and complex numbers; ImportError without nibabel; else whatever
    nibabel, gzip and zlib raise.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(f"nibabel: needed to read {file.name}; pip install nibabel") from error
    image: Any = nibabel.load(file)
    shape = image.shape
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise ValueError(f"expected 3 dimensions, got shape {shape}")
    dtype = image.get_data_dtype()
    if dtype.fields or dtype.kind not in "iuf":
        kind = "colours (RGB)" if dtype.fields else f"{dtype} numbers"
        raise ValueError(f"expected one real number a voxel, got {kind}")
    values = np.asarray(image.dataobj).reshape((*shape, 1)[:3])
    spacing = nibabel.affines.voxel_sizes(image.affine)
    if not as_stored:  # axes to the patient's right, front and head
        axes = nibabel.io_orientation(image.affine)
        values = nibabel.apply_orientation(values, axes)
        spacing = spacing[np.argsort(axes[:, 0])]
    back = slice(None) if as_stored else slice(None, None, -1)
    x, y, z = (float(s) for s in spacing)
    return Volume(values.transpose(2, 1, 0)[:, back, back], (z, y, x), image, as_stored)


# -------------------------------------------------------------------------------------------------------------- both


@dataclass
class Picture:
    """An image or volume that was read: (N, H, W, C) uint8, and what writes (N, H, W) uint8 labels in its format."""

    pixels: np.ndarray
    save: Callable[[np.ndarray, Path], None]


def read_picture(
    file: Path, hu: tuple[float, float] | None = None, as_stored: bool = False, channels: int = 3
) -> Picture:
    """Reads an image or a NIfTI volume.

    Args:
        hu: the window in Hounsfield units of volumes and of images with more than 8 bits; None: by their percentiles.
        as_stored: slices of volumes as the file has them.
        channels: that the network takes; volumes have one, which is repeated for three.

    Raises: ValueError, with the file's name, for anything else; ImportError without nibabel.
    """
    try:
        if not file.name.lower().endswith(VOLUMES):
            return Picture(read_channels(file, file.name, channels, hu)[0][None], save_png)
        volume = read_volume(file, as_stored)
        return Picture(as_channels(_to_bytes(volume.values, hu)[..., None], channels), volume.save)
    except ImportError:
        raise
    except Exception as error:  # Pillow, nibabel, gzip and zlib have each their own
        raise ValueError(f"{file.name}: {error or type(error).__name__}") from error


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Writes (1, H, W) uint8 labels, or (1, H, W, 3) uint8 colours, with this product's name in the file; float32
    estimates, (1, H, W) or (1, H, W, K), as a TIFF file, a page for each of the K."""
    from PIL import Image, PngImagePlugin

    if pixels.dtype == np.float32:
        first, *others = [Image.fromarray(page) for page in np.moveaxis(np.atleast_3d(pixels[0]), -1, 0)]
        first.save(path, format="TIFF", save_all=True, append_images=others, tiffinfo={SOFTWARE: PRODUCT})
        return
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", PRODUCT)
    Image.fromarray(pixels[0]).save(path, format="PNG", pnginfo=about)


def is_result(file: Path) -> bool:
    """Whether prediction wrote a file, as the file itself says."""
    try:
        if file.name.lower().endswith((".png", ".tif")):
            from PIL import Image

            with Image.open(file) as image:
                return PRODUCT in (image.info.get("Software"), getattr(image, "tag_v2", {}).get(SOFTWARE))
        if file.name.lower().endswith(VOLUMES):
            import nibabel

            volume: Any = nibabel.load(file)
            return bytes(volume.header["descrip"]).rstrip(b"\0") == PRODUCT.encode()
    except Exception:  # whoever reads it will say what is wrong with it
        pass
    return False
