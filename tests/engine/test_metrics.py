"""Scores: against brute force, against MONAI where the definitions agree, and the rules where they do not."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou

from rwkvlib.engine.metrics import hd95_larger, hd95_together, score, surface, surface_distances


def blobs(shape, classes, seed):
    """Random smooth labels, and a perturbed copy of them."""
    rng = np.random.default_rng(seed)
    fields = rng.standard_normal((classes, *shape))
    for axis in range(1, fields.ndim):
        for _ in range(3):
            fields = fields + np.roll(fields, 1, axis) + np.roll(fields, -1, axis)
    fields /= fields.std()
    truth = fields.argmax(0).astype(np.uint8)
    return (fields + 0.4 * rng.standard_normal(fields.shape)).argmax(0).astype(np.uint8), truth


def naive_surface(mask):
    """Pixel by pixel: those of the mask with a direct neighbour outside it."""
    padded, found = np.pad(mask, 1), []
    for place in np.argwhere(padded):
        steps = [s * np.eye(mask.ndim, dtype=int)[i] for i in range(mask.ndim) for s in (-1, 1)]
        if not all(padded[tuple(place + s)] for s in steps):
            found.append(place - 1)
    return np.array(found)


def naive_distances(a, b, spacing):
    """From every surface pixel of a the smallest of all distances to b's surface."""
    a, b = (naive_surface(x) * np.asarray(spacing, float) for x in (a, b))
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


CASES = [((24, 20), None), ((24, 20), (0.7, 1.9)), ((7, 12, 11), None), ((7, 12, 11), (5.0, 0.8, 0.8))]


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_distances_equal_brute_force(shape, spacing, seed):
    p, t = (x == 1 for x in blobs(shape, 3, seed))
    unit = spacing or np.ones(len(shape))
    assert {tuple(i) for i in np.argwhere(surface(t))} == {tuple(i) for i in naive_surface(t)}
    a, b = naive_distances(p, t, unit), naive_distances(t, p, unit)
    for found, expected in zip(surface_distances(p, t, spacing), (a, b), strict=True):
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-12)
    assert hd95_together(p, t, spacing) == pytest.approx(np.percentile(np.concatenate([a, b]), 95))
    assert hd95_larger(p, t, spacing) == pytest.approx(max(np.percentile(a, 95), np.percentile(b, 95)))


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_strict_scores_equal_monais(shape, spacing):
    p, t = blobs(shape, 4, 2)
    rows = score(p, t, 4, spacing=spacing)
    for c in range(1, 4):
        pair = [torch.from_numpy(x == c)[None, None].float() for x in (p, t)]
        row = rows[c - 1]
        assert row["class"] == c and 0.2 < row["dice"] < 0.95
        assert row["dice"] == pytest.approx(compute_dice(*pair).item(), abs=1e-6)
        assert row["iou"] == pytest.approx(compute_iou(*pair).item(), abs=1e-6)
        options = dict(include_background=True, percentile=95)
        if spacing is None:
            assert row["hd95"] == pytest.approx(compute_hausdorff_distance(*pair, **options).item(), abs=1e-5)
        else:
            distance = compute_hausdorff_distance(*pair, **options, spacing=list(spacing))
            assert row["hd95"] == pytest.approx(distance.item(), abs=1e-5)


def test_scores_by_hand():
    """Four rows of four pixels: 4 of the class, 4 predicted, 2 of them right, 10 rightly left alone."""
    t, p = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    t[1], p[1:3, :2] = 1, 1
    for protocol in ("strict", "published"):
        (row,) = score(p, t, 2, protocol=protocol)
        assert (row["dice"], row["iou"], row["sensitivity"]) == (0.5, 1 / 3, 0.5)
        assert row["specificity"] == 10 / 12 and (row["truth"], row["predicted"]) == (4, 4)


def test_a_satellite_moves_the_larger_percentile_and_not_the_percentile_of_all():
    """A disc found a little too large, plus a speck far away: 26.5 by MONAI's HD95, 2.24 by medpy's."""
    y, x = np.mgrid[:128, :128]
    disc, larger, speck = ((y - 64) ** 2 + (x - c) ** 2 <= r**2 for c, r in ((45, 20), (45, 22), (93, 2)))
    p, t = (larger | speck).astype(np.uint8), disc.astype(np.uint8)
    (strict,), (published,) = score(p, t, 2), score(p, t, 2, protocol="published")
    assert (round(strict["hd95"], 1), round(published["hd95"], 2)) == (26.5, 2.24)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (p, t)]
    monai = compute_hausdorff_distance(*pair, include_background=True, percentile=95)
    assert strict["hd95"] == pytest.approx(monai.item(), abs=1e-5)
    without = score(larger.astype(np.uint8), t, 2)[0]
    assert without["hd95"] < 3 and without["dice"] == pytest.approx(strict["dice"], abs=0.01)


EMPTY = [
    # truth, prediction, then dice and hd95 of the published protocol, and of the strict one
    (True, True, (1, 0), (1, 0)),
    (False, True, (1, 0), (0, np.nan)),
    (True, False, (0, 0), (0, np.nan)),
    (False, False, (0, 0), (np.nan, np.nan)),
]


@pytest.mark.parametrize(("truth", "prediction", "published", "strict"), EMPTY)
@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_empty_masks(truth, prediction, published, strict, shape):
    full = np.zeros(shape, np.uint8)
    full[..., 2:5, 2:5] = 1
    p, t = full * prediction, full * truth
    for protocol, (dice, hd95) in (("published", published), ("strict", strict)):
        (row,) = score(p, t, 2, protocol=protocol)
        np.testing.assert_equal([row["dice"], row["iou"], row["hd95"]], [dice, dice, hd95])
        assert np.isnan(row["sensitivity"]) == (not truth)


def test_the_published_protocol_takes_no_notice_of_spacing():
    p, t = blobs((7, 12, 11), 2, 0)
    far = (50.0, 1.0, 1.0)
    assert score(p, t, 2, protocol="published", spacing=far) == score(p, t, 2, protocol="published")
    t = np.zeros_like(t)
    t[2:5, 3:9, 3:9] = 1
    assert score(np.roll(t, 1, axis=0), t, 2, spacing=far)[0]["hd95"] == 50


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_a_volume_of_one_slice_scores_as_the_image_does(protocol, axis):
    p, t = blobs((30, 24), 3, 5)
    image = score(p, t, 3, protocol=protocol, spacing=(0.8, 1.7))
    spacing = np.insert([0.8, 1.7], axis, 6.0)
    assert score(np.expand_dims(p, axis), np.expand_dims(t, axis), 3, protocol=protocol, spacing=spacing) == image
    assert image[0]["hd95"] > 0


def test_a_line_of_pixels_scores_alike_as_image_and_volume():
    p, t = (x[:1, :, 0].astype(np.uint8) for x in blobs((2, 40, 3), 2, 0))
    assert score(p, t, 2) == score(p[None], t[None], 2)


def test_a_boolean_mask_is_a_mask():
    p, t = blobs((12, 12), 2, 0)
    assert score(p == 1, t == 1, 2) == score(p, t, 2) == score(torch.from_numpy(p == 1), t, 2)


def test_hd95_can_be_left_out():
    p, t = blobs((12, 12), 3, 0)
    for protocol in ("published", "strict"):
        rows = score(p, t, 4, protocol=protocol, hd95=False)  # class 3 is nowhere
        assert all(np.isnan(row["hd95"]) for row in rows)
        assert rows[0]["dice"] == score(p, t, 4, protocol=protocol)[0]["dice"]


def test_a_score_names_bad_input():
    good = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="protocol: expected one of published, strict, got 'monai'"):
        score(good, good, 2, protocol="monai")
    with pytest.raises(TypeError, match="prediction: expected integers or bool, got float64"):
        score(good.astype(float), good, 2)
    with pytest.raises(ValueError, match=r"prediction: expected the truth's shape \(4, 4\), got \(4, 5\)"):
        score(np.zeros((4, 5), int), good, 2)
    with pytest.raises(ValueError, match="expected classes 0 to 1, got 0 to 255; of a mask of 0 and 255: mask > 0"):
        score(good, np.eye(4, dtype=int) * 255, 2)
    with pytest.raises(ValueError, match=r"truth: expected shape \(H, W\) or \(D, H, W\), got \(4,\)"):
        score(good, good[0], 2)
    for spacing in [(1, 1, 1), (0, 1), (float("nan"), 1)]:
        with pytest.raises(ValueError, match="spacing: expected 2 positive numbers"):
            score(good, good, 2, spacing=spacing)
