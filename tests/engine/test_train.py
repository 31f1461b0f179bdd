"""The trainer: what each field of a recipe does."""

import time

import numpy as np
import pytest
import torch
import torch.nn as nn
from PIL import Image

from rwkvlib import create_model, load_checkpoint
from rwkvlib.__main__ import main
from rwkvlib.data import synthetic_polyps
from rwkvlib.engine import train as module
from rwkvlib.engine.checkpoint import load_state, save_checkpoint, states
from rwkvlib.engine.train import train
from rwkvlib.models.baselines import BASELINES

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])


def weights(run):
    return load_state(states(run)[-1])[0]


def same(a, b):
    return all(torch.equal(x, b[key]) for key, x in a.items())


def test_training_learns(tmp_path, recipe):
    """Four images by heart, from the loss at the start to less than two thirds of it."""
    log = train(recipe(data="synthetic:4", epochs=25, lr=5e-3, augment="none"), tmp_path, progress=False)
    assert log[-1]["loss"] < 0.66 * log[0]["loss"]
    assert [row["step"] for row in log] == list(range(1, 26))


def test_a_seed_gives_the_same_weights_and_another_gives_others(tmp_path, recipe):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(recipe(epochs=1, seed=seed), tmp_path / name, progress=False)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("choose", ["best", "last"])
def test_the_weights_kept_are_the_chosen_ones(choose, tmp_path, recipe, monkeypatch):
    scores = iter([0.1, 0.5, 0.3])
    seen = []

    def scored(model, *args, **kwargs):
        import pandas as pd

        seen.append({key: x.clone() for key, x in model.state_dict().items()})
        return pd.DataFrame({"dice": [next(scores)]})

    monkeypatch.setattr(module, "evaluate", scored)
    train(recipe(choose=choose), tmp_path, progress=False)
    model, meta = load_checkpoint(tmp_path / "model.safetensors")
    assert same(model.state_dict(), seen[1 if choose == "best" else 2])
    assert meta["metrics"]["dice"] == (0.5 if choose == "best" else 0.3)


def test_accumulation_without_coupling_changes_nothing(tmp_path, recipe, monkeypatch):
    """With a loss that is a mean over images, and BatchNorm frozen, parts add up to the whole batch."""
    monkeypatch.setattr(module, "make_loss", lambda *args: nn.BCEWithLogitsLoss())
    common = dict(epochs=2, augment="none", freeze_batchnorm=True, overrides=dict(TINY, drop_path=0.0))
    for n in (1, 2, 4):
        train(recipe(accumulate=n, **common), tmp_path / f"{n}", progress=False)
    whole, *others = (weights(tmp_path / f"{n}") for n in (1, 2, 4))
    for parts in others:
        for key, x in parts.items():
            torch.testing.assert_close(x, whole[key], atol=1e-6, rtol=0, msg=key)


def test_frozen_batchnorm_keeps_its_statistics(tmp_path, recipe):
    train(recipe(epochs=1, freeze_batchnorm=True), tmp_path / "frozen", progress=False)
    train(recipe(epochs=1), tmp_path / "free", progress=False)
    means = {
        run: [x for key, x in weights(tmp_path / run).items() if "running_mean" in key] for run in ("frozen", "free")
    }
    assert all((x == 0).all() for x in means["frozen"]) and all((x != 0).any() for x in means["free"])


def test_the_average_of_the_weights_is_what_is_kept(tmp_path, recipe):
    train(recipe(epochs=3, ema=0.5, choose="last"), tmp_path / "ema", progress=False)
    train(recipe(epochs=3, choose="last"), tmp_path / "plain", progress=False)
    assert same(weights(tmp_path / "ema"), weights(tmp_path / "plain")), "it does not touch the training"
    average = load_state(states(tmp_path / "ema")[-1])[1]["average"]
    kept = load_checkpoint(tmp_path / "ema" / "model.safetensors")[0].state_dict()
    assert same(kept, {key.removeprefix("module."): x for key, x in average.items()})
    assert not same(kept, weights(tmp_path / "ema"))


def test_a_budget_ends_the_run_and_the_schedule_with_it(tmp_path, recipe):
    train(recipe(epochs=1), tmp_path / "warm", progress=False)
    start = time.perf_counter()
    log = train(recipe(epochs=10_000, budget_seconds=3), tmp_path / "run", progress=False)
    assert time.perf_counter() - start < 6 and 3 <= log[-1]["seconds"] < 4
    rates = [row["lr"] for row in log]
    assert max(rates) > 0.9e-3 and rates[-1] < 0.15e-3 and "dice" in log[-1]
    again = train(recipe(epochs=10_000, budget_seconds=3), tmp_path / "run", resume=True, progress=False)
    assert again == log, "time that was spent before counts"


def test_the_warm_up_rises_to_the_schedule(tmp_path, recipe):
    log = train(recipe(schedule="constant", warmup_epochs=2, validate_every=1), tmp_path, progress=False)
    np.testing.assert_allclose([row["lr"] for row in log], [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_clipping_bounds_the_gradient(tmp_path, recipe, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def measured(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    train(recipe(epochs=1, clip=0.01), tmp_path / "clip", progress=False)
    assert len(norms) == 2 and max(norms) < 0.0101
    train(recipe(epochs=1, clip=0), tmp_path / "free", progress=False)
    assert min(norms[2:]) > 0.02


def test_bf16_computes_in_bf16_and_stores_float32(tmp_path, recipe, monkeypatch):
    kinds = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: (y := forward(self, x), kinds.append(y.dtype))[0])
    (row,) = train(recipe(epochs=1, mixed_precision="bf16", choose="last", validation=None), tmp_path, progress=False)
    assert set(kinds) == {torch.bfloat16} and np.isfinite(row["loss"])
    assert all(x.dtype != torch.bfloat16 for x in weights(tmp_path).values())


def test_compile_compiles_the_model_and_leaves_the_names_of_its_weights(tmp_path, recipe, monkeypatch):
    compiled = []
    compile = torch.compile
    # The real graph capture; "eager" spares the C++ compiler's minutes.
    monkeypatch.setattr(torch, "compile", lambda f, **kw: (compiled.append(f), compile(f, backend="eager"))[1])
    config = dict(model="unet", overrides=dict(channels=[4, 8, 8], strides=[2, 2]), epochs=1, augment="none")
    train(recipe(compile=True, **config), tmp_path / "compiled", progress=False)
    train(recipe(**config), tmp_path / "plain", progress=False)
    assert len(compiled) == 1
    found = weights(tmp_path / "compiled")
    for key, x in weights(tmp_path / "plain").items():
        torch.testing.assert_close(found[key], x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_take_the_same_recipes(name, tmp_path, recipe):
    overrides = dict(swin_unetr=dict(feature_size=12), dyn_unet=dict(filters=[8] * 6)).get(name, {})
    train(recipe(model=name, overrides=overrides, epochs=1, size=64, num_classes=2), tmp_path, progress=False)
    model, meta = load_checkpoint(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64) and meta["model"] == name
    with pytest.raises(ValueError, match=f"x: expected height and width divisible by {model.divisor}, got 64 x 40"):
        model(torch.rand(1, 3, 64, 40))


def test_an_unknown_model_names_the_known_ones(tmp_path, recipe):
    with pytest.raises(ValueError, match=r"model: expected one of rwkv_unet_t, .*dyn_unet, got 'u_net'"):
        train(recipe(model="u_net"), tmp_path, progress=False)


def test_a_run_starts_from_pretrained_weights(tmp_path, recipe, capsys):
    source = create_model("rwkv_encoder_t", num_classes=5, **TINY)
    meta = dict(model="rwkv_encoder_t", overrides=dict(TINY, num_classes=5, variant="published"), size=32)
    save_checkpoint(tmp_path / "e.safetensors", source, meta)
    config = recipe(pretrained=str(tmp_path / "e.safetensors"), epochs=1, lr=1e-12, weight_decay=0)
    train(config, tmp_path / "run", progress=False)
    found = weights(tmp_path / "run")
    for key, x in source.named_parameters():
        if not key.startswith(("norm.", "head.")):
            torch.testing.assert_close(found[f"encoder.{key}"], x, atol=1e-9, rtol=0)
    out = capsys.readouterr().out
    assert "loaded" in out and "left" in out and "ccm, decoder1" in out
    model, meta = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert model.encoder.stage3[1].att.variant == "published", "the operator that the weights were trained with"
    with pytest.raises(ValueError, match="has shape"):
        train(
            recipe(pretrained=config.pretrained, overrides=dict(TINY, dims=[8, 8, 16, 24])),
            tmp_path / "b",
            progress=False,
        )


def test_images_come_from_the_column_that_the_recipe_names(tmp_path, recipe):
    root = tmp_path / "set"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows = ["name,split,by_sequence"]
    for i in range(6):
        image, mask = synthetic_polyps(i, 32)
        Image.fromarray(image).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
        rows.append(f"{i},{'train' if i < 5 else 'validation'},{'train' if i > 1 else 'validation'}")
    (root / "items.csv").write_text("\n".join(rows))
    assert train(recipe(data=str(root), epochs=1, batch_size=5), tmp_path / "a", progress=False)[0]["step"] == 1
    with pytest.raises(ValueError, match="batch_size: expected at most the 4 training items, got 5"):
        train(recipe(data=str(root), epochs=1, batch_size=5, split="by_sequence"), tmp_path / "b", progress=False)
    # An image that cannot be read stops a run before it touches what there is.
    train(recipe(data=str(root)), tmp_path / "c", stop_after=1, progress=False)
    before = weights(tmp_path / "c")
    (root / "images" / "3.png").write_bytes((root / "images" / "3.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"item '3' of .* does not decode"):
        train(recipe(data=str(root)), tmp_path / "c", resume=True, progress=False)
    assert same(weights(tmp_path / "c"), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml", "out=x"], "config: no file 'nowhere.yaml'"),
        (["r.yaml"], "out: expected the run's folder as out=PATH, got none"),
        (["r.yaml", "out=x", "data=nowhere"], "data: expected a folder or zip"),
        (["r.yaml", "out=x", "model=u"], "model: expected one of"),
        (["r.yaml", "out=x", "augment=some"], "augment: expected one of none, default"),
        (["r.yaml", "out=x", "loss=some"], "loss: "),
        (["r.yaml", "out=x", "schedule=some"], "schedule: "),
        (["r.yaml", "out=x", "pretrained=nowhere.pth"], "no file 'nowhere.pth'"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, tmp_path, write_recipe, monkeypatch, capsys):
    write_recipe("r.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(["train", *arguments])
    assert error.value.code == 2 and message in capsys.readouterr().err
