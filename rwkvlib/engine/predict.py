"""Prediction for images of any size, for files of any number.

MONAI, Pillow and nibabel are imported where they are needed: this module comes with ``import rwkvlib``.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..layers import ConvNormAct

# Of ImageNet, as for the published encoders.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(image: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] to the scale that the models are trained with: ImageNet's for three channels, else
    mean 0.5 and standard deviation 0.25 for every channel."""
    rgb = image.shape[1] == 3
    mean, std = (image.new_tensor(x).view(1, -1, 1, 1) for x in ((MEAN, STD) if rgb else ((0.5,), (0.25,))))
    return (image - mean) / std


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d)


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy of a model in eval mode whose BatchNorms are folded into the convolutions before them: same outputs,
    fewer passes over memory, no training any more. Raises ValueError for a model in training mode."""
    if model.training:
        raise ValueError("model: expected a model in eval mode, got one in training mode")
    return _fold(copy.deepcopy(model))


def _fold(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if _foldable(module):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity().eval()
    return model


def inference_copy(model: nn.Module) -> nn.Module:
    """The model as `predict_files` and `evaluate` run it, and as the book's latencies are measured.

    It is a copy in eval mode, BatchNorm folded (`fold_batchnorm`), weights channels last. The outputs are equal to
    1e-5, and the model stays as it is. One without a BatchNorm to fold comes back itself: a copy has nothing to gain.

    For many images: ``fast = inference_copy(model)`` once, then ``predict(fast, image)``.
    """
    if not any(_foldable(module) for module in model.modules()):
        return model
    return _fold(copy.deepcopy(model).eval()).to(memory_format=torch.channels_last)


_lock = threading.Lock()
# The threads that are inside `eval_mode`, by model, and the modes to restore after the last of them.
_inside: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within, all modules of the model are in eval mode; afterwards each is in the mode that it was in.

    A model that is wholly in eval mode already is left alone. Several threads may be inside with one model: the first
    switches, the last restores. (Not while another thread trains it: the mode is the model's, not the thread's.)
    """
    with _lock:
        threads, modes = _inside.get(model, (0, {}))
        if not threads and any(module.training for module in model.modules()):
            modes = {module: module.training for module in model.modules()}
            model.eval()
        _inside[model] = threads + 1, modes
    try:
        yield
    finally:
        with _lock:
            threads, modes = _inside.pop(model)
            if threads > 1:
                _inside[model] = threads - 1, modes
            else:
                for module, mode in modes.items():  # parents first: train() sets the modules below as well
                    if module.training != mode:
                        module.train(mode)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside nn.DataParallel and its like, which knows its divisor and channels."""
    return getattr(model, "module", model)


MARGIN = 0.01  # that values may lie outside [0, 1]: resizing with sharper filters than bilinear overshoots


def _check_image(model: nn.Module, image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(
            f"image: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}; "
            "of 8-bit pixels (H, W, C): torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255"
        )
    shape = tuple(image.shape)
    if image.ndim != 4 or 0 in shape:
        batch = "; of one image: image[None]" if image.ndim == 3 else ""
        raise ValueError(f"image: expected shape (B, C, H, W), got {shape}{batch}")
    channels = getattr(getattr(_unwrapped(model), "config", None), "in_channels", None)
    wrong = shape[1] != channels if channels else shape[1] > 4 and shape[3] in (1, 3, 4)
    if wrong:
        turned = shape[3] in ((channels,) if channels else (1, 3, 4))
        order = "; in the order (B, H, W, C): image.permute(0, 3, 1, 2)" if turned else ""
        raise ValueError(f"image: expected shape (B, {channels or 'C'}, H, W), got {shape}{order}")
    low, high = (x.item() for x in image.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):  # aminmax hands NaN on
        raise ValueError("image: expected finite values, got NaN or infinity")
    if low < -MARGIN or high > 1 + MARGIN:
        raise ValueError(
            f"image: expected values in [0, 1], got {low:g} to {high:g}; divide 8-bit values by 255, and leave the "
            "normalisation to predict"
        )


def predict(
    model: nn.Module,
    image: Tensor,
    *,
    size: int | None = None,
    flips: bool = False,
    window: int | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """Logits for images of any height and width: padded at the right and bottom as the model needs, then cropped.

    Args:
        model: of `build_model`, on any device, of any floating-point dtype; used in eval mode, with every module left
            in the mode it was in, see `eval_mode`. For many images see `inference_copy`.
        image: (B, C, H, W) in [0, 1], of any floating-point dtype.
        size: height and width in pixels that the network sees: the image is resized to it (bilinear, antialiased), the
            logits back to the image's (bilinear). None: the image as it is.
        flips: the mean logits of the image, its two mirror images and its half turn, each turned back.
        window: side in pixels of the windows that larger images are taken in, one after the other, their logits
            weighted by a Gaussian (MONAI's sliding_window_inference); None takes the image whole.
        overlap: of neighbouring windows, a share of their side.

    Returns:
        (B, num_classes, H, W) logits without gradient, of the model's dtype, on the image's device.

    Raises:
        ValueError, TypeError: not such a tensor, values outside [0, 1] by more than 0.01 or not finite; no such window.
    """
    _check_image(model, image)
    return predict_unchecked(model, image, size=size, flips=flips, window=window, overlap=overlap)


@torch.no_grad()
def predict_unchecked(
    model: nn.Module,
    image: Tensor,
    *,
    size: int | None = None,
    flips: bool = False,
    window: int | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """`predict` for images whose values may lie outside [0, 1]: the published protocol's cubic splines overshoot."""
    if size is not None and size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    divisor = getattr(_unwrapped(model), "divisor", 16)  # 16: `create_model`'s halve the image four times
    if window is not None and window < divisor:
        raise ValueError(f"window: expected at least {divisor} pixels, got {window}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share from 0 to below 1, got {overlap}")
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    # Resized and normalised in float32 at least, whatever the model's dtype is.
    x, own = image.to(like.device, torch.promote_types(like.dtype, torch.float32)), tuple(image.shape[2:])
    resized = size is not None and own != (size, size)
    if resized:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    x = normalise(x).to(like.dtype)
    with eval_mode(model):
        parts = []
        for axes in ((), (2,), (3,), (2, 3)) if flips else ((),):
            parts.append(_whole_or_windows(model, x.flip(axes), divisor, window, overlap).flip(axes))
    logits = torch.stack(parts).mean(0) if flips else parts[0]
    if resized:
        logits = F.interpolate(logits.contiguous(memory_format=torch.channels_last), own, mode="bilinear")
    return logits.to(image.device)


def _whole_or_windows(model: nn.Module, x: Tensor, divisor: int, window: int | None, overlap: float) -> Tensor:
    def padded(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        # Repeating the edge, since mirroring needs an image larger than what it adds.
        return model(F.pad(x, (0, -width % divisor, 0, -height % divisor), mode="replicate"))[..., :height, :width]

    if window is None:
        return padded(x)
    from monai.inferers import sliding_window_inference

    return sliding_window_inference(x, (window, window), 4, padded, overlap, mode="gaussian", padding_mode="replicate")


def to_labels(logits: Tensor) -> Tensor:
    """(B, num_classes, H, W) logits to (B, H, W) uint8 class indices; one channel is a mask where it is above 0."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).byte()
    return logits.contiguous(memory_format=torch.channels_last).argmax(1).byte()  # a fifth of the time on a CPU


IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii", ".nii.gz")
# Of the classes 1, 2, ...: Okabe and Ito's, which the colour-blind can tell apart.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
)


@dataclass
class Picture:
    """An image or volume that was read: (N, H, W, 3) uint8, and what writes (N, H, W) uint8 labels in its format."""

    pixels: np.ndarray
    save: Callable[[np.ndarray, Path], None]


def _bytes(values: np.ndarray, hu: tuple[float, float] | None) -> np.ndarray:
    """Of a scanner's values uint8: Hounsfield units by their window; those without a unit from their 0.5th to their
    99.5th percentile, as magnetic resonance is prepared for training."""
    from ..data.window import stretch, window

    if not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    return stretch(values) if hu is None else window(values, *hu)


def read_picture(file: Path, hu: tuple[float, float] | None = None, as_stored: bool = False) -> Picture:
    """Reads an image or a NIfTI volume; see `predict_files`. Raises ValueError, with the file's name, for any other."""
    try:
        return (_read_volume if file.name.lower().endswith(VOLUMES) else _read_image)(file, hu, as_stored)
    except ImportError:
        raise
    except Exception as error:  # Pillow, nibabel, gzip and zlib have each their own
        raise ValueError(f"{file.name}: {error or type(error).__name__}") from error


def _read_image(file: Path, hu: tuple[float, float] | None, as_stored: bool) -> Picture:
    from PIL import Image

    with Image.open(file) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"expected one image, got {image.n_frames} in one file")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # more than 8 bits
            pixels = _bytes(np.asarray(image), hu)[..., None].repeat(3, axis=-1)
        else:
            pixels = np.asarray(image.convert("RGB"))

    def save(labels: np.ndarray, path: Path) -> None:
        Image.fromarray(labels[0]).save(path, format="PNG")

    return Picture(pixels[None], save)


def _read_volume(file: Path, hu: tuple[float, float] | None, as_stored: bool) -> Picture:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(f"nibabel: needed to read {file.name}; pip install nibabel") from error
    image = nibabel.load(file)
    if len(image.shape) != 3:
        raise ValueError(f"expected 3 dimensions, got shape {image.shape}")
    turned = image if as_stored else nibabel.as_closest_canonical(image)  # axes to the right, front and head
    values = np.asarray(turned.dataobj).transpose(2, 1, 0)
    back = slice(None) if as_stored else slice(None, None, -1)
    pixels = _bytes(values[:, back, back], hu)

    def save(labels: np.ndarray, path: Path) -> None:
        found = labels[:, back, back].transpose(2, 1, 0)
        if not as_stored:
            codes = nibabel.orientations
            way = codes.ornt_transform(codes.axcodes2ornt("RAS"), codes.io_orientation(image.affine))
            found = codes.apply_orientation(found, way)
        header = image.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        nibabel.save(type(image)(np.ascontiguousarray(found), image.affine, header), path)

    return Picture(pixels[..., None].repeat(3, axis=-1), save)


def overlay(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the classes other than 0 of (H, W) labels half transparent above it."""
    colour = COLOURS[(labels.astype(int) - 1) % len(COLOURS)]
    return np.where(labels[..., None] > 0, (pixels.astype(int) + colour) // 2, pixels).astype(np.uint8)


def _overlays(result: Path) -> Path:
    """Where the overlays of a result go: an image's file, a volume's folder."""
    image = result.name.endswith(".png")
    return result.with_name(result.name.removesuffix(".png").removesuffix(".nii.gz") + "_overlay" + ".png" * image)


def find_files(paths: Iterable[str | Path], out: Path, with_overlay: bool = False) -> dict[Path, Path]:
    """The result, relative to `out`, of each image and volume: of files, and of folders with all that is below them.

    Raises:
        FileNotFoundError: a path that is not there, a folder without images.
        ValueError: a file of another kind, two files with one result; `with_overlay`, a result where an overlay goes.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.name.lower().endswith(IMAGES + VOLUMES)]
            # Results of an earlier run may lie within the folder; a name with a dot may be half a file.
            files = [f for f in files if not f.name.startswith(".") and out.resolve() not in f.resolve().parents]
            if not files:
                raise FileNotFoundError(f"path: no image ({', '.join(IMAGES + VOLUMES)}) in {str(path)!r}")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(f"path: no file or folder {str(path)!r}")
        for file in files:
            suffix = next((s for s in (*VOLUMES[::-1], *IMAGES) if file.name.lower().endswith(s)), None)
            if suffix is None:
                raise ValueError(f"path: expected one of {', '.join(IMAGES + VOLUMES)}, got {file.name!r}")
            kind = ".nii.gz" if suffix in VOLUMES else ".png"
            stem = file.name[: -len(suffix)]
            found[file] = (file.parent.relative_to(path) if path.is_dir() else Path()) / (stem + kind)
    results = list(found.values())
    if with_overlay:
        overlays = {_overlays(result) for result in results}
        results += [result for result in results if result in overlays or result.parent in overlays]
    if twice := sorted({str(r) for r in results if results.count(r) > 1}):
        raise ValueError(f"path: several files would be written to {', '.join(twice)}; give them other folders")
    return found


def predict_files(
    model: nn.Module,
    paths: Iterable[str | Path],
    out: str | Path,
    *,
    with_overlay: bool = False,
    hu: tuple[float, float] | None = None,
    as_stored: bool = False,
    batch_size: int = 8,
    progress: bool = True,
    **options,
) -> list[Path]:
    """Writes a mask for every image and volume among the files and folders `paths`.

    Images become ``NAME.png``: 0 and 255 where the model has one output channel, else class indices. NIfTI volumes
    become ``NAME.nii.gz`` of class indices on the volume's own grid, with its affine.

    Args:
        with_overlay: also ``NAME_overlay.png``, or ``NAME_overlay/000.png``, ... of slices with a class in them.
        hu: the window in Hounsfield units of volumes and of images with more than 8 bits, [-125, 275] for Synapse;
            None takes each from its 0.5th to its 99.5th percentile.
        as_stored: slices of volumes as the file has them; else as radiologists see them (as data_scripts prepares CT).
        batch_size: slices at a time.
        options: of `predict`.

    Returns: the masks written.

    Raises:
        FileNotFoundError, ValueError: as `find_files`, before anything is written; ValueError at the end, with the
            names and reasons, where files could not be read: the others' masks are there. ImportError: no nibabel.
    """
    from PIL import Image
    from tqdm import tqdm

    out, model = Path(out), inference_copy(model)
    files, written, errors = find_files(paths, out, with_overlay), [], []
    for file, result in tqdm(files.items(), unit="file", disable=not progress):
        try:
            picture = read_picture(file, hu, as_stored)
        except ValueError as error:
            errors.append(str(error))
            continue
        parts, binary = [], False
        for batch in batches(picture.pixels, batch_size):
            logits = predict(model, batch, **options)
            parts.append(to_labels(logits).numpy())
            binary = logits.shape[1] == 1
        labels = np.concatenate(parts)
        target = out / result
        target.parent.mkdir(parents=True, exist_ok=True)
        is_image = target.name.endswith(".png")
        _write(target, lambda path, p=picture, x=labels * (255 if binary and is_image else 1): p.save(x, path))
        written.append(target)
        if with_overlay:
            shown_at = out / _overlays(result)
            for i in [0] if is_image else np.flatnonzero(labels.any((1, 2))):
                path = shown_at if is_image else shown_at / f"{i:03d}.png"
                path.parent.mkdir(exist_ok=True)
                shown = Image.fromarray(overlay(picture.pixels[i], labels[i]))
                _write(path, lambda path, shown=shown: shown.save(path, format="PNG"))
    if errors:
        raise ValueError(f"path: {len(errors)} of {len(files)} files could not be read: {'; '.join(errors)}")
    return written


def batches(pixels: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """(N, H, W, C) uint8 as tensors (B, C, H, W) in [0, 1]."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    for i in range(0, len(pixels), batch_size):
        yield torch.from_numpy(np.array(pixels[i : i + batch_size])).permute(0, 3, 1, 2).float() / 255


def _write(path: Path, save: Callable[[Path], None]) -> None:
    """Under a temporary name first, with the same suffix: nibabel goes by it."""
    temporary = path.with_name(f".{path.name}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
