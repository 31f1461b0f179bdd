"""Augmentation of a batch, by kornia."""

import kornia.augmentation as K


def default_augmentation() -> K.AugmentationSequential:
    """Flips, quarter turns, mild brightness and contrast. Call it with (image, mask), both (B, C, H, W) float."""
    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        K.RandomRotation90(times=(0, 3), p=1.0, resample="nearest"),
        K.ColorJiggle(brightness=0.2, contrast=0.2, p=0.5),
        data_keys=["input", "mask"],
    )
