"""What `predict` and `evaluate` do with a model's modes, threads, wrappers and dtypes, and with tensors that are no
images in [0, 1]."""

import copy
import threading

import pandas as pd
import pytest
import torch
from torch import nn

from rwkvlib import create_model, load_official, load_pretrained, predict
from rwkvlib.data import synthetic_polyps
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.predict import eval_mode, fold_batchnorm, inference_copy
from tests.conftest import TINY
from tests.engine.test_evaluate import square, told


@pytest.fixture
def model():
    """With running statistics other than 0 and 1, so that training mode gives other logits; in eval mode."""
    torch.manual_seed(0)
    model = create_model("rwkv_unet_t", **TINY)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 32, 32))
    return model.eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def modes(model):
    return [module.training for module in model.modules()]


def statistics(model):
    return [x.clone() for name, x in model.named_buffers()]


def runs(model, image):
    """Everything that runs a network on images."""
    mask = square((4, 4), (5, 5))
    yield "predict", lambda: predict(model, image)
    yield "flips and windows", lambda: predict(model, image, flips=True, window=16)
    yield "evaluate", lambda: evaluate(model, told(mask, mask), hd95=False)
    yield "evaluate, published", lambda: evaluate(model, told(mask, mask), protocol="published", size=32)


def test_every_module_keeps_its_own_mode_and_statistics(model, image):
    expected = predict(model, image)
    model.train()
    model.encoder.eval()  # as somebody freezes an encoder's BatchNorm
    model.decoder1.conv.norm.eval()
    before, kept = modes(model), statistics(model)
    for name, run in runs(model, image):
        run()
        assert modes(model) == before, name
        assert all(torch.equal(a, b) for a, b in zip(statistics(model), kept, strict=True)), name
    torch.testing.assert_close(predict(model, image), expected)


def test_a_failure_restores_the_modes_too(model, image):
    model.train().encoder.eval()
    before = modes(model)
    with pytest.raises(RuntimeError, match="in a hook"):
        handle = model.final_conv.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("in a hook")))
        predict(model, image)
    handle.remove()
    assert modes(model) == before


def test_a_model_in_eval_mode_is_never_switched(model, image, monkeypatch):
    def refuse(self, mode=True):
        raise AssertionError("the mode was set")

    monkeypatch.setattr(nn.Module, "train", refuse)
    for _, run in list(runs(model, image))[:2]:
        run()


def test_a_module_with_a_train_method_of_its_own_is_asked(image):
    calls = []

    class Merging(nn.Conv2d):  # as low-rank adapters do, which are merged into the weight in eval mode
        def train(self, mode=True):
            calls.append(mode)
            return super().train(mode)

    network = nn.Sequential(Merging(3, 1, 1))
    predict(network, image)
    assert calls == [False, True]


def test_wrappers_leave_the_model_inside_as_it_was(model, image):
    expected = predict(model, image)
    for wrap in (nn.DataParallel, lambda m: torch.compile(m, backend="eager")):
        torch._dynamo.reset()
        torch.testing.assert_close(predict(wrap(model), image), expected)
        assert not any(modes(model))
    deep = create_model("swin_unetr", feature_size=12)  # its divisor is 32
    assert predict(nn.DataParallel(deep), torch.rand(1, 3, 40, 32)).shape == (1, 1, 40, 32)


@pytest.mark.parametrize("training", [False, True])
def test_six_threads_get_the_same_answers_and_leave_the_modes(model, image, training):
    expected = predict(model, image)
    if training:
        model.train().encoder.eval()
    before, kept, answers = modes(model), statistics(model), [None] * 6
    together = threading.Barrier(6)

    def work(i):
        together.wait()
        for _ in range(3):
            answers[i] = predict(model, image)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        torch.testing.assert_close(answer, expected)
    assert modes(model) == before
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), kept, strict=True))


def test_the_last_thread_restores_the_modes(model):
    model.train()
    first, second = eval_mode(model), eval_mode(model)
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert not any(modes(model))
    second.__exit__(None, None, None)
    assert all(modes(model))


@pytest.mark.parametrize("of_image", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("of_model", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_any_dtype_of_model_goes_with_any_of_image(model, image, of_model, of_image):
    expected, image = predict(model, image), image.to(of_image)
    for network in (copy.deepcopy(model).to(of_model), fold_batchnorm(copy.deepcopy(model).to(of_model))):
        logits = predict(network, image)
        assert logits.dtype == of_model
        coarse = torch.bfloat16 in (of_model, of_image) or torch.float16 in (of_model, of_image)
        torch.testing.assert_close(logits.float(), expected, atol=0.03 if coarse else 1e-5, rtol=0)
    assert predict(copy.deepcopy(model).to(of_model), image, size=48).shape == expected.shape
    mask = square((4, 4), (5, 5))
    assert len(evaluate(copy.deepcopy(model).to(of_model), told(mask, mask), hd95=False)) == 2


def test_autocast_and_the_default_dtype_are_obeyed(model, image):
    expected = predict(model, image)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            torch.testing.assert_close(predict(model, image).float(), expected, atol=0.05, rtol=0)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(predict(model, image), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_prediction_serves_as_a_target_and_can_be_changed(model, image):
    target = predict(model, image.requires_grad_())
    assert not target.requires_grad
    target -= 0.5
    nn.functional.mse_loss(create_model("rwkv_unet_t", **TINY).train()(image[..., :32]), target[..., :32]).backward()


def test_values_outside_the_unit_interval_are_refused(model, image):
    for bad, got in ((255 * image, "0.* to 25"), (2 * image - 1, "-1 to 1|-0.99.* to 0.99")):
        with pytest.raises(ValueError, match=rf"image: expected values in \[0, 1\], got ({got}).*divide .* by 255"):
            predict(model, bad)
    predict(model, 1.005 * image)  # a resizing filter's overshoot
    for value in (float("nan"), float("inf")):
        bad = image.clone()
        bad[1, 2, 3, 4] = value
        with pytest.raises(ValueError, match="image: expected finite values, got NaN or infinity"):
            predict(model, bad)


def test_the_order_of_axes_is_named_as_it_came(model):
    for shape, message in [
        ((1, 40, 40, 3), r"expected shape \(B, 3, H, W\), got \(1, 40, 40, 3\); .* image.permute\(0, 3, 1, 2\)"),
        ((1, 1, 40, 40), r"expected shape \(B, 3, H, W\), got \(1, 1, 40, 40\)$"),
        ((3, 40, 40), r"expected shape \(B, C, H, W\), got \(3, 40, 40\); of one image: image\[None\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            predict(model, torch.rand(shape))
    with pytest.raises(ValueError, match=r"got \(1, 40, 40, 3\); .* image.permute"):
        predict(create_model("unet"), torch.rand(1, 40, 40, 3))
    with pytest.raises(TypeError, match=r"image: expected a floating-point tensor, got torch.uint8; .* / 255"):
        predict(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_the_copy_for_inference_gives_the_same_numbers_and_leaves_the_model():
    model, _ = load_pretrained("rwkv_unet_t_synthetic")
    image = torch.from_numpy(synthetic_polyps(5, 96)[0]).permute(2, 0, 1)[None] / 255
    model.train().encoder.eval()
    before = modes(model)
    fast = inference_copy(model)
    assert modes(model) == before and not any(modes(fast))
    torch.testing.assert_close(predict(fast, image), predict(model, image), atol=1e-5, rtol=1e-5)
    folded, whole = (sum(isinstance(m, nn.BatchNorm2d) for m in x.modules()) for x in (fast, model))
    assert 0 < folded < whole  # those before a convolution stay
    assert fast.final_conv.weight.data_ptr() != model.final_conv.weight.data_ptr()
    plain = create_model("unet")
    assert inference_copy(plain) is plain  # instance norms cannot be folded


def test_evaluate_runs_the_folded_copy(model, monkeypatch):
    seen = []
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, x: seen.append(self) or x)
    mask = square((4, 4))
    evaluate(model, told(mask, mask), hd95=False)
    assert len(seen) == 2
    assert not {id(m) for m in seen} & {id(m) for m in model.modules()}


def test_released_weights_are_loaded_for_inference():
    model = create_model("rwkv_unet_t", **TINY)
    assert model.training
    load_official(model, {k: v.clone() for k, v in create_model("rwkv_unet_t", **TINY).state_dict().items()})
    assert not any(modes(model))
    assert model.config.variant == model.encoder.config.variant == "published"
    assert isinstance(pd.DataFrame(evaluate(model, told(square((4, 4)), square((4, 4))))), pd.DataFrame)
