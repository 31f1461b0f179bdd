"""Augmentation: image and mask move together, masks stay labels, and a seed decides all of it."""

import pytest
import torch
from accelerate.utils import set_seed

from rwkvlib.data.augment import AUGMENTATIONS, imagenet_augmentation, make_augmentation

NAMES = sorted(set(AUGMENTATIONS) - {"none"})


@pytest.fixture
def batch():
    """64 images whose grey is their mask's label, black where there is none, as beyond the border: three blobs, none of
    them in the middle or symmetric."""
    mask = torch.zeros(64, 1, 64, 64)
    mask[:, :, 10:30, 8:40], mask[:, :, 36:56, 20:50], mask[:, :, 40:50, 25:40] = 1, 3, 2
    return (mask / 4).repeat(1, 3, 1, 1), mask


@pytest.mark.parametrize("name", NAMES)
def test_image_and_mask_move_together(name, batch):
    set_seed(0)
    image, mask = make_augmentation(name, 64)(*batch)
    assert image.shape == batch[0].shape and mask.shape == batch[1].shape
    assert set(mask.unique().tolist()) == {0, 1, 2, 3}, "labels stay labels"
    for x, y in zip(image.mean(1), mask[:, 0], strict=True):
        inside = (
            torch.nn.functional.max_pool2d(y[None], 5, 1, 2)[0] == -torch.nn.functional.max_pool2d(-y[None], 5, 1, 2)[0]
        )
        shades = torch.stack([x[inside & (y == label)].median() for label in range(4) if (inside & (y == label)).any()])
        assert (shades.diff() >= 0).all(), "colours change, their order does not"
        # A pixel inside a region of the mask has the region's shade: within what neighbours and the border blur.
        for label, shade in zip([v for v in range(4) if (inside & (y == v)).any()], shades, strict=True):
            off = (x[inside & (y == label)] - shade).abs() > 0.04
            assert off.float().mean() < 0.05, f"label {label}"


@pytest.mark.parametrize(
    ("name", "moved", "coloured", "bent"),
    # The chances that the mask moves (flips and turns may undo each other), that shades change, that lines bend.
    [
        ("default", 0.875, 0.5, 0),
        ("paper_synapse", 0.1, 0.1, 0),
        ("paper_acdc", 1 - (0.625 * 0.75**2 + 0.125 * 0.25**2) * 0.7**2, 0.3, 0),
        ("strong", 1 - 0.5**2 * 0.2 * 0.7, 0.8, 0.3),
        ("pictures", 0.875, 0.8, 0),
    ],
)
def test_each_image_has_its_own_chance_of_each_step(name, moved, coloured, bent):
    set_seed(0)
    size, n = 32, 256
    augment, middle, found = make_augmentation(name, size), slice(12, 20), []
    mask, flat = torch.rand(n, 1, size, size), torch.full((n, 3, size, size), 0.5)
    ramp = torch.linspace(0.4, 0.6, size).expand(n, 3, size, size).clone()
    for _ in range(3):
        image, other = augment(ramp, mask)
        x = image[:, 0, middle, middle]
        bends = [x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2], x[:, :, 2:] - 2 * x[:, :, 1:-1] + x[:, :, :-2]]
        bend = torch.stack([y.abs().amax((1, 2)) for y in bends]).amax(0)
        shade = augment(flat, mask)[0][:, :, size // 2, size // 2]
        found.append(torch.stack([(other != mask).flatten(1).any(1), (shade - 0.5).abs().amax(1) > 1e-4, bend > 1e-4]))
    shares = torch.cat(found, 1).float().mean(1).tolist()
    assert shares == pytest.approx([moved, coloured, bent], abs=0.04), "moved, coloured, bent"


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_whatever_was_drawn_before(name, batch):
    augment = make_augmentation(name, 64)
    results = []
    for seed in (7, 8, 7):
        set_seed(seed)
        results.append(augment(*batch))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))
    assert not torch.equal(results[0][0], results[1][0])


def test_classification_crops_to_the_size_and_follows_the_seed():
    augment, image, results = imagenet_augmentation(32), torch.rand(4, 3, 48, 48), []
    for seed in (0, 1, 0):
        set_seed(seed)
        results.append(augment(image))
    assert results[0].shape == (4, 3, 32, 32) and 0 <= results[0].min() and results[0].max() <= 1
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


def test_names_are_checked():
    assert make_augmentation("none", 32) is None
    with pytest.raises(ValueError, match=r"augment: expected one of none, default, .*, got 'paper'"):
        make_augmentation("paper", 32)
