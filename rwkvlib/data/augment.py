"""Augmentation of a batch on its device, by kornia; image and mask move together."""

from collections.abc import Callable

import kornia.augmentation as K
import torch.nn as nn
from kornia.augmentation.auto import RandAugment
from kornia.constants import DataKey

from .pixels import Size, pair


def _together(*steps: nn.Module) -> K.AugmentationSequential:
    """Masks are moved by the nearest neighbour, so their values stay class indices; all else is as for the image."""
    return K.AugmentationSequential(
        *steps, data_keys=["input", "mask"], extra_args={DataKey.MASK: {"resample": "nearest"}}
    )


def _crop(size: Size, p: float) -> K.RandomResizedCrop:
    """Crops of half the area at least, resized back. Each image has its own chance; kornia's is the whole batch's."""
    crop = K.RandomResizedCrop(pair(size), scale=(0.5, 1.0), cropping_mode="resample")
    crop.p = p
    return crop


def _colour(channels: int, p: float, **ranges: float) -> list[nn.Module]:
    """Brightness, contrast and more of RGB images; those two alone of others."""
    if channels == 3:
        return [K.ColorJiggle(**ranges, p=p)]
    brightness, contrast = ((1 - ranges[name], 1 + ranges[name]) for name in ("brightness", "contrast"))
    return [K.RandomBrightness(brightness, p=p), K.RandomContrast(contrast, p=p)]


def _quarter_turns(size: Size, p: float) -> list[K.RandomRotation90]:
    """None for what is not square, of which a quarter turn would leave the middle alone."""
    height, width = pair(size)
    return [K.RandomRotation90(times=(0, 3), p=p, resample="nearest")] if height == width else []


def default_augmentation(size: Size = 0, channels: int = 3) -> K.AugmentationSequential:
    """Flips, quarter turns of squares, mild brightness and contrast. Call it with (image, mask), both (B, C, H, W)
    float."""
    return _together(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        *_quarter_turns(size, p=1.0),
        *_colour(channels, p=0.5, brightness=0.2, contrast=0.2),
    )


def synapse_augmentation(size: Size, channels: int = 3) -> K.AugmentationSequential:
    """The published recipe for Synapse: brightness and contrast, and a crop, each with probability 0.1. By how much
    is not published: 20 %, and crops of half the area at least."""
    return _together(
        *_colour(channels, p=0.1, brightness=0.2, contrast=0.2),
        _crop(size, p=0.1),
    )


def acdc_augmentation(size: Size, channels: int = 3) -> K.AugmentationSequential:
    """The published recipe for ACDC: a quarter turn (of squares) with probability 0.5 and a flip with about as much;
    with 0.3 each a rotation by up to 30 degrees, brightness and contrast, and a crop (as for Synapse)."""
    return _together(
        *_quarter_turns(size, p=0.5),
        K.RandomHorizontalFlip(p=0.25),
        K.RandomVerticalFlip(p=0.25),
        K.RandomRotation(30.0, p=0.3),
        *_colour(channels, p=0.3, brightness=0.2, contrast=0.2),
        _crop(size, p=0.3),
    )


def strong_augmentation(size: Size, channels: int = 3) -> K.AugmentationSequential:
    """For training from scratch: flips, any rotation, scale 0.7 to 1.4, colour, and smooth elastic bending."""
    return _together(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        K.RandomAffine(degrees=180.0, translate=(0.1, 0.1), scale=(0.7, 1.4), padding_mode="reflection", p=0.8),
        K.RandomElasticTransform(
            kernel_size=tuple(n // 4 * 2 + 1 for n in pair(size)),
            sigma=tuple(n / 12 for n in pair(size)),
            alpha=(1.0, 1.0),
            padding_mode="reflection",
            p=0.3,
        ),
        *_colour(channels, p=0.8, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
    )


def pictures_augmentation(size: Size = 0) -> K.AugmentationSequential:
    """For pictures without labels, which `PictureStream` crops: flips, quarter turns, colour, now and then grey."""
    return _together(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        K.RandomRotation90(times=(0, 3), p=1.0, resample="nearest"),
        K.ColorJiggle(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, p=0.8),
        K.RandomGrayscale(p=0.1),
    )


# From the size, and the channels where they are not three.
AUGMENTATIONS: dict[str, Callable[..., K.AugmentationSequential] | None] = {
    "none": None,
    "default": default_augmentation,
    "paper_synapse": synapse_augmentation,
    "paper_acdc": acdc_augmentation,
    "strong": strong_augmentation,
    "pictures": pictures_augmentation,
}


def make_augmentation(name: str, size: Size, channels: int = 3) -> K.AugmentationSequential | None:
    """One of `AUGMENTATIONS` for images of `size` pixels; None for "none". Raises ValueError for another name."""
    if name not in AUGMENTATIONS:
        raise ValueError(f"augment: expected one of {', '.join(AUGMENTATIONS)}, got {name!r}")
    if name == "pictures" and channels != 3:
        raise ValueError(f"augment: pictures takes RGB, got in_channels = {channels}")
    build = AUGMENTATIONS[name]
    return build and (build(size) if channels == 3 else build(size, channels=channels))


def imagenet_augmentation(size: int) -> nn.Module:
    """For classification, (B, 3, H, W) to (B, 3, size, size): crop, flip, RandAugment of magnitude 9 with two
    operations, which kornia draws once for a whole batch."""
    return K.ImageSequential(
        K.RandomResizedCrop((size, size), cropping_mode="resample"),
        K.RandomHorizontalFlip(p=0.5),
        RandAugment(n=2, m=9),
    )
