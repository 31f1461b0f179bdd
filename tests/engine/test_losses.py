"""Losses: the paper's formula, and MONAI's class. For several processes see test_multiprocess.py."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss

from rwkvlib.engine.losses import DeepSupervision, make_loss

WEIGHTS = {"binary": (0.5, 1.0), "synapse": (0.5, 0.5), "acdc": (0.2, 0.8), "acdc_before_october_2025": (0.3, 0.7)}


def batch(classes, shape=(3, 9, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    b, h, w = shape
    logits = torch.randn(b, classes, h, w, generator=generator)
    return logits, torch.randint(0, max(2, classes), (b, 1, h, w), generator=generator).float()


def naive_dice(logits, mask):
    """Class by class, pixel sums over the whole batch, squares in the denominator: TransUNet's loop."""
    p, total = logits.softmax(1), 0.0
    for c in range(p.shape[1]):
        g = (mask[:, 0] == c).float()
        total += 1 - (2 * (p[:, c] * g).sum() + 1e-5) / ((p[:, c] ** 2).sum() + (g**2).sum() + 1e-5)
    return total / p.shape[1]


@pytest.mark.parametrize(("name", "ce", "dice"), [("synapse", 0.5, 0.5), ("acdc", 0.2, 0.8), ("binary", 0.5, 1.0)])
def test_the_loss_is_the_papers(name, ce, dice):
    logits, mask = batch(4)
    expected = ce * torch.nn.functional.cross_entropy(logits, mask[:, 0].long()) + dice * naive_dice(logits, mask)
    torch.testing.assert_close(make_loss(name, 4)(logits, mask), expected)


def test_the_binary_loss_is_the_papers():
    logits, mask = batch(1)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * mask).sum() + 1e-5) / (p.square().sum() + mask.square().sum() + 1e-5)
    expected = 0.5 * torch.nn.functional.binary_cross_entropy_with_logits(logits, mask) + dice
    torch.testing.assert_close(make_loss("binary", 1)(logits, mask), expected)


@pytest.mark.parametrize("classes", [1, 4])
def test_focal_and_tversky_losses_are_their_formulas(classes):
    logits, mask = batch(classes)
    if classes == 1:
        p, g = logits.sigmoid(), mask
        right = torch.where(g > 0, p, 1 - p)
    else:
        p = logits.softmax(1)
        g = torch.cat([(mask == c).float() for c in range(classes)], 1)
        right = torch.where(g > 0, p, torch.ones_like(p))  # a class that is not there counts 0, in the mean of all
    focal = -((1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(make_loss("focal", classes)(logits, mask), focal, atol=1e-5, rtol=1e-4)
    true, more, missed = (x.sum((0, 2, 3)) for x in (p * g, p * (1 - g), (1 - p) * g))
    tversky = 1 - (true / (true + 0.3 * more + 0.7 * missed)).mean()
    torch.testing.assert_close(make_loss("tversky", classes)(logits, mask), tversky, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("classes", [1, 2, 9])
def test_the_loss_and_its_gradient_are_monais(name, classes):
    logits, mask = batch(classes)
    mask[mask == classes - 1] = 0  # with a class that does not occur, where the smoothing term decides
    ce, dice = WEIGHTS[name]
    kind = dict(sigmoid=True) if classes == 1 else dict(softmax=True, to_onehot_y=True)
    smooth = dict(smooth_nr=1e-5, smooth_dr=1e-5)
    monai = DiceCELoss(squared_pred=True, batch=True, lambda_ce=ce, lambda_dice=dice, **smooth, **kind)
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    ours, theirs = make_loss(name, classes)(a, mask), monai(b, mask)
    torch.testing.assert_close(ours, theirs)
    ours.backward(), theirs.backward()
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("weights", [None, [1.0, 0.3, 0.2]])
@pytest.mark.parametrize("kind", [list, tuple])
def test_deep_supervision_is_monais(weights, kind):
    shapes = [(3, 12, 20), (3, 6, 10), (3, 4, 5)]  # the last ones are where "nearest" and "nearest-exact" differ
    a = [batch(3, shape, seed)[0].requires_grad_() for seed, shape in enumerate(shapes)]
    b = [x.detach().clone().requires_grad_() for x in a]
    mask = batch(3, shapes[0])[1]
    ours = DeepSupervision(make_loss("synapse", 3), weights)(kind(a), mask.byte())
    theirs = DeepSupervisionLoss(make_loss("synapse", 3), weights=weights)(b, mask)
    torch.testing.assert_close(ours, theirs)
    ours.backward(), theirs.backward()
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


def test_one_output_has_the_loss_itself_and_weights_must_fit():
    logits, mask = batch(3)
    loss = DeepSupervision(make_loss("acdc", 3))
    assert torch.equal(loss(logits, mask), make_loss("acdc", 3)(logits, mask))
    with pytest.raises(ValueError, match="outputs: expected 2, one for each weight, got 3"):
        DeepSupervision(make_loss("acdc", 3), [1, 0.5])([logits] * 3, mask)


def test_the_dice_of_a_batch_is_not_the_mean_of_its_images():
    logits, mask = batch(3)
    mask[0] = 0
    per_image = DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True, smooth_nr=1e-5, smooth_dr=1e-5)
    assert abs(per_image(logits, mask) - naive_dice(logits, mask)) > 0.01


def test_a_loss_names_bad_input():
    logits, mask = batch(3)
    loss = make_loss("synapse", 3)
    with pytest.raises(ValueError, match=r"loss: expected one of binary, synapse, acdc, .* got 'dice'"):
        make_loss("dice", 3)
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        make_loss("acdc", 0)
    with pytest.raises(ValueError, match=r"logits: expected 3 channels, got shape \(3, 2, 9, 7\)"):
        loss(logits[:, :2], mask)
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 1, 9, 7\), got \(3, 9, 7\)"):
        loss(logits, mask[:, 0])
    with pytest.raises(ValueError, match="mask: expected class indices 0 to 2, got 0 to 3"):
        loss(logits, mask.index_fill(0, torch.tensor(1), 3))
    with pytest.raises(ValueError, match="mask: expected class indices 0 to 1, got 0 to 255"):
        make_loss("binary", 1)(logits[:, :1], (mask > 0) * 255)
