"""The synthetic sets: seeded, and each with the properties that it is made for."""

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from rwkvlib.analysis import receptive_field_radius
from rwkvlib.data import right_side, synthetic_long_range, synthetic_polyps


def chebyshev(a, b):
    """The distance between the nearest pixels of two masks."""
    a, b = np.argwhere(a), np.argwhere(b)
    return np.abs(a[:, None] - b[None]).max(-1).min()


@pytest.mark.parametrize(("size", "distance"), [(64, 1), (64, 8), (64, 32), (70, 20), (128, 64)])
def test_the_cue_is_exactly_at_its_distance(size, distance):
    for seed in range(20):
        (image, mask), (other, other_mask) = (synthetic_long_range(seed, size, distance, flip=f) for f in (0, 1))
        cue = (image != other).any(-1)
        disc = (mask + other_mask) > 0
        assert chebyshev(cue, disc) == distance
        assert not (mask & other_mask).any() and mask.sum() == other_mask.sum() > 0
        rows = np.argwhere(mask)[:, 0], np.argwhere(other_mask)[:, 0]
        assert max(min(rows, key=np.min)) < min(max(rows, key=np.min)), "an upper and a lower half"


def test_the_two_cues_have_the_same_pixels_in_other_places():
    sides = []
    for seed in range(40):
        (image, mask), (other, other_mask) = (synthetic_long_range(seed, 64, 16, flip=f) for f in (False, True))
        assert not np.array_equal(image, other)
        for channel in range(3):
            counts = [np.bincount(x[..., channel].ravel(), minlength=256) for x in (image, other)]
            assert np.array_equal(*counts), "equal histograms, so equal mean and variance"
        # All that the label decides on is which way the square's stripes run.
        y, x = np.argwhere((image != other).any(-1)).min(0), np.argwhere((image != other).any(-1)).max(0) + 1
        square = image[y[0] : x[0], y[1] : x[1]].astype(int)
        assert square.shape == (12, 12, 3)
        across, along = (np.abs(np.diff(square, axis=axis)).mean() for axis in (1, 0))
        upper = np.argwhere(mask)[:, 0].mean() < np.argwhere(other_mask)[:, 0].mean()
        assert (across > along) == upper
        sides.append(upper)
    assert 10 < sum(sides) < 30


def test_long_range_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="distance: expected 1 to 43 at size 64, got 44"):
        synthetic_long_range(0, 64, 44)
    assert synthetic_long_range(0, 64, 43)[0].shape == (64, 64, 3)
    with pytest.raises(ValueError, match="distance: expected 1 to"):
        synthetic_long_range(0, 64, 0)
    with pytest.raises(ValueError, match="size: expected at least 32, got 31"):
        synthetic_long_range(0, 31, 2)


def test_right_side_counts_wins_and_ties():
    masks, flipped = np.zeros((3, 2, 2)), np.zeros((3, 2, 2))
    masks[:, 0], flipped[:, 1] = 1, 1
    scores = np.array([[[1, 1], [0, 0]], [[-3, 0], [-1, -1]], [[2, 0], [1, 1]]])
    assert right_side(scores, masks, flipped).tolist() == [1, 0, 0.5]


def test_a_u_net_is_blind_beyond_its_receptive_field_and_only_there():
    torch.manual_seed(0)
    model = UNet(2, 3, 1, (8, 16, 32), (2, 2), num_res_units=1, norm="batch").eval().double()
    radius = receptive_field_radius(lambda x: model(x.double()), 96, stride=4)
    assert 8 < radius < 40

    def logits(distance):
        drawn = [synthetic_long_range(s, 96, distance, flip=flip) for flip in (False, True) for s in range(8)]
        images, masks = (np.stack(x) for x in zip(*drawn, strict=True))
        with torch.inference_mode():
            y = model(torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255)[:, 0].numpy()
        return y, masks, np.roll(masks, 8, 0)

    y, masks, others = logits(radius + 1)
    disc = (masks + others)[:8] > 0
    assert np.array_equal(y[:8][disc], y[8:][disc]), "the cue changes nothing on the disc"
    assert not np.array_equal(y[:8], y[8:]), "but it does elsewhere"
    assert right_side(y, masks, others).mean() == 0.5
    y, masks, others = logits(radius - 4)
    disc = (masks + others)[:8] > 0
    assert not np.array_equal(y[:8][disc], y[8:][disc])


def test_polyps_are_seeded_and_neither_empty_nor_full():
    for a, b in zip(synthetic_polyps(3, 48), synthetic_polyps(3, 48), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(synthetic_polyps(3, 48)[0], synthetic_polyps(4, 48)[0])
    shares = [synthetic_polyps(seed, 64)[1].mean() for seed in range(50)]
    assert min(shares) > 0.005 and max(shares) < 0.6
