"""The trainer: what each field of a recipe does."""

import itertools
import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn as nn
from PIL import Image
from torch.optim.swa_utils import AveragedModel, update_bn

from rwkvlib import create_model, load_checkpoint
from rwkvlib.__main__ import main
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.engine import train as module
from rwkvlib.engine.checkpoint import load_state, save_checkpoint, states
from rwkvlib.engine.config import TrainConfig
from rwkvlib.engine.losses import LOSSES
from rwkvlib.engine.predict import normalise
from rwkvlib.engine.train import Task, best_row, only_run, renew_statistics, share, train, typical_images
from rwkvlib.layers import DropPath
from rwkvlib.models.registry import BASELINES, MODELS, Entry
from tests.conftest import TINY

STATISTICS = re.compile(r"running_(mean|var)$|num_batches_tracked$")


def weights(run):
    return load_state(states(run)[-1])[0]


def learnt(run):
    """Without BatchNorm's statistics, which training does not use."""
    return {key: x for key, x in weights(run).items() if not STATISTICS.search(key)}


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
        return pd.DataFrame({"class": 1, "dice": [next(scores)]})

    monkeypatch.setattr(module, "evaluate", scored)
    train(recipe(choose=choose), tmp_path, progress=False)
    model, meta = load_checkpoint(tmp_path / "model.safetensors")
    assert same(model.state_dict(), seen[1 if choose == "best" else 2])
    assert meta["metrics"]["dice"] == (0.5 if choose == "best" else 0.3)


def test_accumulation_without_coupling_changes_nothing(tmp_path, recipe, monkeypatch):
    """With a loss that is a mean over images, and BatchNorm frozen, parts add up to the whole batch."""
    monkeypatch.setattr(module, "make_loss", lambda *args, **options: nn.BCEWithLogitsLoss())
    common = dict(epochs=2, augment="none", freeze_batchnorm=True, overrides=dict(TINY, drop_path=0.0))
    for n in (1, 2, 4):
        train(recipe(accumulate=n, **common), tmp_path / f"{n}", progress=False)
    whole, *others = (weights(tmp_path / f"{n}") for n in (1, 2, 4))
    for parts in others:
        for key, x in parts.items():
            torch.testing.assert_close(x, whole[key], atol=1e-6, rtol=0, msg=key)


def test_images_are_augmented_as_the_recipe_says(tmp_path, recipe):
    for name in ("none", "strong"):
        train(recipe(epochs=1, augment=name), tmp_path / name, progress=False)
    assert not same(learnt(tmp_path / "none"), learnt(tmp_path / "strong"))


def test_weights_decay_as_the_recipe_says(tmp_path, recipe):
    train(recipe(epochs=1, weight_decay=0.3), tmp_path, progress=False)
    groups = load_state(states(tmp_path)[-1])[1]["optimiser"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.3]


def test_validation_scores_by_the_recipes_protocol(tmp_path, recipe, monkeypatch):
    found, evaluate = [], module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *a, **kw: (found.append(kw["protocol"]), evaluate(*a, **kw))[1])
    train(recipe(epochs=1, protocol="published"), tmp_path, progress=False)
    assert found == ["published"]


def test_frozen_batchnorm_keeps_its_statistics(tmp_path, recipe):
    train(recipe(epochs=1, freeze_batchnorm=True), tmp_path / "frozen", progress=False)
    train(recipe(epochs=1), tmp_path / "free", progress=False)
    means = {
        run: [x for key, x in weights(tmp_path / run).items() if "running_mean" in key] for run in ("frozen", "free")
    }
    assert all((x == 0).all() for x in means["frozen"]) and all((x != 0).any() for x in means["free"])


def test_the_average_of_the_weights_is_what_is_kept(tmp_path, recipe, monkeypatch):
    path, update = [], AveragedModel.update_parameters

    def seen(self, model):
        path.append({key: x.detach().clone() for key, x in model.named_parameters()})
        update(self, model)

    monkeypatch.setattr(AveragedModel, "update_parameters", seen)
    train(recipe(epochs=3, ema=0.7, choose="last"), tmp_path / "ema", progress=False)
    train(recipe(epochs=3, choose="last"), tmp_path / "plain", progress=False)
    assert same(learnt(tmp_path / "ema"), learnt(tmp_path / "plain")), "it does not touch the training"
    average = load_state(states(tmp_path / "ema")[-1])[1]["average"]
    kept = load_checkpoint(tmp_path / "ema" / "model.safetensors")[0].state_dict()
    assert same(kept, {key.removeprefix("module."): x for key, x in average.items()})
    expected, *later = path
    for step in later:
        expected = {key: 0.7 * x + 0.3 * step[key] for key, x in expected.items()}
    assert len(path) == 6
    for key, x in expected.items():
        torch.testing.assert_close(kept[key], x, atol=1e-6, rtol=1e-5)


@pytest.fixture
def clock(monkeypatch):
    """The trainer's clock: a tenth of a second passes from one look to the next."""
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 10))


def test_a_budget_ends_the_run_and_the_schedule_with_it(tmp_path, recipe, clock):
    log = train(recipe(epochs=10_000, budget_seconds=3), tmp_path / "run", progress=False)
    assert log[-1]["seconds"] == pytest.approx(3, abs=0.11) and 25 <= log[-1]["step"] <= 30
    rates = [row["lr"] for row in log]
    assert max(rates) > 0.9e-3 and rates[-1] < 0.15e-3 and "dice" in log[-1]
    again = train(recipe(epochs=10_000, budget_seconds=3), tmp_path / "run", resume=True, progress=False)
    assert again == log, "time that was spent before counts"


def test_a_number_of_steps_ends_the_run_and_the_schedule_with_it(tmp_path, recipe):
    log = train(recipe(epochs=50, steps=5, validate_every=2), tmp_path / "a", progress=False)
    assert [row["step"] for row in log] == [2, 4, 5] and log[-1]["epoch"] == 2.5
    assert log[-1]["lr"] == pytest.approx(4e-9), "the schedule has come to its end"
    train(recipe(epochs=3), tmp_path / "epochs", progress=False)
    train(recipe(steps=6), tmp_path / "steps", progress=False)
    assert (tmp_path / "epochs" / "log.json").read_text().count('"step"') == 3
    of_epochs, of_steps = (load_state(states(tmp_path / run)[-1])[0] for run in ("epochs", "steps"))
    assert all(torch.equal(x, of_steps[key]) for key, x in of_epochs.items())


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
    with pytest.raises(ValueError, match=f"x: expected height and width divisible by {model.divisor}, got 64 x 36"):
        model(torch.rand(1, 3, 64, 36))


class Supervised(nn.Module):
    """Two outputs while it trains, at full and at half size, and the first one else."""

    divisor = 2

    def __init__(self, *, in_channels, num_classes):
        super().__init__()
        self.fine, self.coarse = (nn.Conv2d(in_channels, num_classes, 3, s, 1) for s in (1, 2))

    def forward(self, x):
        return [self.fine(x), self.coarse(x)] if self.training else self.fine(x)


def test_a_row_of_the_table_with_several_outputs_trains(tmp_path, recipe, monkeypatch):
    monkeypatch.setitem(MODELS, "supervised", Entry(Supervised, {}, 2))
    monkeypatch.setitem(LOSSES, "bce", lambda num_classes: nn.BCEWithLogitsLoss())
    for name in ("binary", "bce"):
        config = recipe(model="supervised", overrides={}, loss=name, epochs=1)
        assert 0 <= train(config, tmp_path / name, progress=False)[0]["dice"] <= 1
        moments = load_state(states(tmp_path / name)[-1])[1]["optimiser"]["state"]
        assert len(moments) == 4 and all(state["exp_avg"].any() for state in moments.values()), "both outputs learn"


def test_an_unknown_model_names_the_known_ones(recipe):
    with pytest.raises(ValueError, match=r"model: expected one of rwkv_unet_t, .*dyn_unet, segresnet, got 'u_net'"):
        recipe(model="u_net")
    with pytest.raises(ValueError, match=r"model: expected one of .*, got 'rwkv_encoder_t'"):
        recipe(model="rwkv_encoder_t")


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
        (["r.yaml"], "out: expected the run's folder as out=PATH or --out PATH, got none"),
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


@pytest.mark.parametrize("more", [{}, {"ema": 0.5}, {"accumulate": 2}], ids=["plain", "average", "accumulated"])
def test_the_statistics_saved_are_those_of_the_weights_and_training_goes_on_as_before(more, tmp_path, recipe):
    common = dict(choose="last", overrides=dict(TINY, drop_path=0.0), **more)
    log = train(recipe(**common), tmp_path / "new", progress=False)
    old = train(recipe(batchnorm_images=0, **common), tmp_path / "old", progress=False)
    assert same(learnt(tmp_path / "new"), learnt(tmp_path / "old"))
    assert [row["loss"] for row in log] == [row["loss"] for row in old]
    saved, meta = load_checkpoint(tmp_path / "new" / "model.safetensors")
    lagging, _ = load_checkpoint(tmp_path / "old" / "model.safetensors")
    before = {key: x.clone() for key, x in saved.state_dict().items()}
    data = load_data("synthetic:8", "train", size=32)
    images = torch.stack([data[i]["image"] for i in typical_images(data, 4, 0)])
    update_bn([normalise(images)], saved.train())
    for key, x in saved.state_dict().items():
        torch.testing.assert_close(x, before[key], atol=1e-4, rtol=1e-3)
    lags = [key for key, x in lagging.state_dict().items() if not torch.allclose(x, before[key], atol=0.01)]
    assert len(lags) > 10 and all(STATISTICS.search(key) for key in lags)
    assert meta["metrics"]["dice"] == log[-1]["dice"]


def test_new_statistics_cost_what_they_may_and_nothing_without_batchnorm(recipe, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "update_bn", lambda images, model: calls.append([len(x) for x in images]))
    data = load_data("synthetic:40", "train", size=32)
    task = Task(nn.BatchNorm2d(3), data, "mask", None, None, None, "dice", {})
    for fields, steps, count in (
        (dict(batch_size=4), 3, 4),
        (dict(batch_size=4), 24, 16),
        (dict(batch_size=4), 1000, 40),
        (dict(batch_size=4, batchnorm_images=10), 1000, 10),
        (dict(batch_size=16, batchnorm_images=10), 3, 10),
        (dict(batch_size=16), 8, 21),
        (dict(batch_size=16), 1000, 40),
        (dict(batchnorm_images=0), 1000, 0),
        (dict(freeze_batchnorm=True), 1000, 0),
    ):
        assert renew_statistics(task.model, task, recipe(**fields), steps) == count
    assert calls == [[4], [4] * 4, [4] * 10, [5, 5], [10], [21], [20, 20]], "no odd image, which may have no variance"
    assert renew_statistics(nn.InstanceNorm2d(3, affine=True), task, recipe(), 1000) == 0 and len(calls) == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(size=40), "size: expected a multiple of 16 for rwkv_unet_t, got 40; near ones: 32, 48"),
        (
            dict(model="unet", overrides=dict(channels=[4] * 6, strides=[2] * 5), size=48),
            "size: expected a multiple of 32 for unet, got 48; near ones: 32, 64",
        ),
        (
            dict(size=16, batch_size=1),
            "batch_size: BatchNorm needs more than one value a channel, and a pass has 1 image",
        ),
        (dict(size=16, batch_size=2, accumulate=2), "batch_size: BatchNorm needs more than one value a channel"),
        (dict(validation="val"), r"validation: split: expected one of .*validation=null choose=last"),
    ],
)
def test_what_cannot_be_trained_is_said_in_the_recipes_words(fields, message, tmp_path, recipe, monkeypatch):
    if "size" in fields and fields["size"] > 16:
        monkeypatch.setattr(module, "item_order", lambda *a: pytest.fail("it was not refused before the first step"))
    with pytest.raises(ValueError, match=message):
        train(recipe(**fields), tmp_path, progress=False)


def test_a_failing_compiler_is_named(tmp_path, recipe, monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile(f, backend=backend))
    small = dict(model="unet", overrides=dict(channels=[4, 8, 8], strides=[2, 2]))
    with pytest.raises(ValueError, match=r"compile: PyTorch could not compile the model \(.*C\+\+ compiler such as g"):
        train(recipe(compile=True, **small), tmp_path, progress=False)


def test_undefined_scores_are_null_in_the_log(tmp_path, recipe, monkeypatch):
    import pandas as pd

    monkeypatch.setattr(module, "evaluate", lambda *a, **kw: pd.DataFrame({"class": 1, "dice": [float("nan")]}))
    log = train(recipe(epochs=1), tmp_path, progress=False)
    assert np.isnan(log[-1]["dice"])

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    stored = json.loads((tmp_path / "log.json").read_text(), parse_constant=no_constant)
    assert stored[-1]["dice"] is None and load_checkpoint(tmp_path)[1]["metrics"]["dice"] is None


def test_the_best_row_is_the_last_of_equals_and_never_an_undefined_one():
    rows = [{"d": 0.5}, {"d": 0.5}, {"d": float("nan")}, {"d": 0.1}]
    assert best_row(rows, "d") is rows[1] and best_row(rows[2:3], "d") is rows[2]
    assert best_row([{"d": float("nan")}] * 2 + rows[:1], "d") is rows[0]


def test_the_end_says_the_best_score_and_where_the_weights_are(tmp_path, recipe, capsys):
    train(recipe(), tmp_path, stop_after=2)
    assert f"in {tmp_path / 'model.safetensors'}; 2 steps are left for resume=true" in capsys.readouterr().out
    log = train(recipe(), tmp_path, resume=True)
    best = best_row(log, "dice")
    line = f"best weights: dice {best['dice']:.4g} at step {best['step']} of 6, in {tmp_path / 'model.safetensors'}"
    assert line in capsys.readouterr().out.splitlines()


def test_the_bar_counts_to_what_the_budget_allows(tmp_path, recipe, monkeypatch, clock):
    bars, tqdm = [], module.tqdm
    monkeypatch.setattr(module, "tqdm", lambda *a, **kw: (bars.append(tqdm(*a, **kw | {"disable": True})), bars[-1])[1])
    log = train(recipe(epochs=10_000, budget_seconds=2), tmp_path)
    assert abs(bars[0].total - log[-1]["step"]) <= 1


def test_paths_may_be_objects_and_begin_at_home(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainConfig(data=Path("~/mine"), pretrained=Path("~/w.pth"))
    assert config.data == str(tmp_path / "mine") and config.pretrained == str(tmp_path / "w.pth")
    train(recipe(epochs=1), "~/run", progress=False)
    assert (tmp_path / "run" / "model.safetensors").exists() and not Path("~").exists()


def test_two_runs_never_write_into_one_folder(tmp_path, recipe, start_process):
    holder = start_process(
        "-c",
        "import sys, time; from pathlib import Path; from rwkvlib.engine.train import only_run\n"
        f"with only_run(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)",
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FileExistsError, match=r"out: another training writes into .* at present"):
        train(recipe(), tmp_path, progress=False)
    assert not (tmp_path / "config.json").exists(), "refused before anything is written"
    holder.kill()
    holder.wait()
    train(recipe(epochs=1), tmp_path, progress=False)
    assert not (tmp_path / ".lock").exists(), "a lock whose process was killed holds nobody up"
    with only_run(tmp_path), pytest.raises(FileExistsError, match="another training"), only_run(tmp_path):
        pass


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, write_recipe, start_process):
    path, out = (
        write_recipe(data="synthetic:8", epochs=1000, save_every=10_000, validate_every=10_000),
        tmp_path / "run",
    )
    code = "import sys, rwkvlib.engine.train as t; from rwkvlib.__main__ import main\n"
    code += "forward = t.normalise\ndef told(x): print('step', flush=True); return forward(x)\nt.normalise = told\n"
    process = start_process("-c", code + f"main(['train', {str(path)!r}, 'lr=1e-4', '--out', {str(out)!r}])")
    for line in process.stdout:
        if line.endswith("step\n"):  # behind the bar, which ends no line
            break
    os.kill(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in rest
    assert rest.splitlines()[-1] == (
        f"interrupted; go on with: python -m rwkvlib train {path} lr=1e-4 out={out} resume=true"
    )
    (state,) = states(out)
    step = load_state(state)[1]["progress"]["step"]
    assert 1 <= step < 100
    main(["train", str(path), "lr=1e-4", f"out={out}", "resume=true", "stop_after=100"])
    assert load_state(states(out)[-1])[1]["progress"]["step"] == 200


def test_ctrl_c_before_there_is_a_folder_says_so(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("rwkvlib.engine.sweep.load_config", interrupt)
    with pytest.raises(SystemExit) as error:
        main(["train", "r.yaml", "lr=1e-4"])
    assert error.value.code == 130 and capsys.readouterr().err == "interrupted before the first checkpoint\n"


def test_the_command_takes_out_as_an_option_and_records_what_can_be_run_again(tmp_path, write_recipe, monkeypatch):
    write_recipe("r.yaml", epochs=1)
    monkeypatch.chdir(tmp_path)
    for given in (["--out", "runs/a", "r.yaml", "lr=1e-4"], ["r.yaml", "out=runs/b", "lr=1e-4"]):
        monkeypatch.setattr(sys, "argv", ["x", "train", *given])
        main()
        out = next(word for word in given if "runs/" in word).removeprefix("out=")
        record = json.loads((tmp_path / out / "provenance.json").read_text())["provenance"]
        assert record["command"] == f"python -m rwkvlib train {' '.join(given)}"
    main(["train", "r.yaml", "lr=1e-4", "--out", "runs/c", "seed=3"])
    assert json.loads((tmp_path / "runs/c/config.json").read_text())["seed"] == 3
    for words in (["r.yaml", "--out", "runs/d", "--lr", "1"], ["r.yaml", "--out", "runs/d", "other.yaml"]):
        with pytest.raises(SystemExit) as caught:
            main(["train", *words])
        assert caught.value.code == 2 and not (tmp_path / "runs/d").exists()


def test_the_images_that_statistics_are_taken_of_are_like_all():
    data = load_data("synthetic:128", "train", size=32)
    chosen, drawn = typical_images(data, 16, 0), np.random.default_rng(0).permutation(128)[:16]
    assert chosen == typical_images(data, 16, 0) != typical_images(data, 16, 1) and len(set(chosen)) == 16
    off = lambda places: np.abs(data.images[places].mean((0, 1, 2)) - data.images.mean((0, 1, 2))).max()  # noqa: E731
    assert off(chosen) < 0.5 * off(drawn)
    assert sorted(typical_images(data, 128, 0)) == list(range(128))


def test_new_statistics_are_those_of_the_network_that_drops_nothing(recipe):
    data = load_data("synthetic:40", "train", size=32)
    model = nn.Sequential(nn.Dropout2d(0.5), DropPath(0.5), nn.BatchNorm2d(3)).train()
    task = Task(model, data, "mask", None, None, None, "dice", {})
    assert renew_statistics(model, task, recipe(batch_size=40), 1) == 40
    images = normalise(torch.stack([data[i]["image"] for i in range(40)]))
    torch.testing.assert_close(model[2].running_mean, images.mean((0, 2, 3)), atol=1e-5, rtol=0)
    assert model[0].p == model[1].p == 0.5 and model.training


@pytest.mark.parametrize("data_on", ["device", "auto"])
def test_batches_cut_on_the_device_are_those_that_a_loader_collates(data_on, tmp_path, recipe):
    logs = [train(recipe(data_on=place), tmp_path / place, progress=False) for place in ("host", data_on)]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]
    assert same(weights(tmp_path / "host"), weights(tmp_path / data_on))


def test_only_small_sets_lie_on_a_gpu(monkeypatch):
    data, gpu = load_data("synthetic:4", "train", size=32), torch.device("cuda", 0)
    for free, expected in ((100 * data.nbytes, True), (2 * data.nbytes, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert module.keep_on_device(data, "auto", gpu) is expected
        assert module.keep_on_device(data, "device", gpu) and not module.keep_on_device(data, "host", gpu)
    assert not module.keep_on_device(data, "auto", torch.device("cpu"))
    with pytest.raises(ValueError, match="data_on: 'device' takes SegmentationData, got list"):
        module.keep_on_device([], "device", gpu)


def test_losses_that_are_read_late_are_the_same(tmp_path, recipe, monkeypatch):
    logs = []
    for name, steps in (("each", 1), ("late", 4)):
        monkeypatch.setitem(module.PATIENCE, "cpu", steps)
        logs.append(train(recipe(epochs=5), tmp_path / name, progress=False))
    for a, b in zip(*logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12) and a["dice"] == b["dice"]
    assert same(weights(tmp_path / "each"), weights(tmp_path / "late"))


def test_a_loss_read_late_still_names_its_step_and_items(tmp_path, recipe, monkeypatch):
    monkeypatch.setitem(module.PATIENCE, "cpu", 20)
    real, calls = module.make_loss, []

    def broken(name, classes, **options):
        loss = real(name, classes, **options)

        def of(logits, target):
            calls.append(1)
            return loss(logits, target) * (float("nan") if len(calls) == 3 else 1)

        return of

    monkeypatch.setattr(module, "make_loss", broken)
    with pytest.raises(
        FloatingPointError, match=r"nan in step 3, of the items synthetic_\d+, .*last checkpoint is None"
    ):
        train(recipe(epochs=4, validate_every=8, save_every=8), tmp_path, progress=False)
    assert len(calls) == 8 and not states(tmp_path)


def test_patience_ends_a_run_that_no_longer_rises(tmp_path, recipe, monkeypatch):
    """Of eight steps a quarter without a better validation is enough; what is as good is no better."""
    scores = [0.2, 0.5, 0.5, 0.4, 0.9]

    def evaluate(*args, **kwargs):
        return pd.DataFrame({"class": 1, "dice": [given.pop(0)]})

    monkeypatch.setattr(module, "evaluate", evaluate)
    patient = recipe(epochs=4, validate_every=1, patience=0.25)
    given = list(scores)
    log = train(patient, tmp_path / "a", progress=False)
    assert [row["step"] for row in log] == [1, 2, 3, 4] and given == [0.9]
    assert load_state(states(tmp_path / "a")[-1])[1]["progress"]["step"] == 4, "the end is saved"
    assert train(patient, tmp_path / "a", resume=True, progress=False) == log, "and stays the end"
    # Undefined scores are no better ones, and time counts where time is what bounds a run.
    given = [float("nan")] * 8
    assert len(train(patient, tmp_path / "b", progress=False)) == 3
    given = list(scores)
    timed = recipe(epochs=4, validate_every=1, patience=0.5, budget_seconds=1e6)
    assert len(train(replace(timed, epochs=2), tmp_path / "c", progress=False)) == 4
    for wrong in (-0.1, 1):
        with pytest.raises(ValueError, match="patience: expected at least 0 and less than 1"):
            recipe(patience=wrong)
    with pytest.raises(ValueError, match="patience: expected 0 where validation is null"):
        recipe(patience=0.2, validation=None, choose="last")


def test_a_share_of_the_labels_is_drawn_by_the_seed_and_nested(tmp_path, recipe, monkeypatch):
    data = load_data("synthetic:40", "train", size=32)
    parts = {labels: share(data, labels, 0) for labels in (0.01, 0.05, 0.25, 0.5, 1)}
    assert [len(part) for part in parts.values()] == [1, 2, 10, 20, 40]
    names = [set(part.names) for part in parts.values()]
    assert all(a < b for a, b in itertools.pairwise(names))
    assert set(share(data, 0.25, 1).names) != names[2] and share(data, 0.25, 0).names == parts[0.25].names
    item = parts[0.25][3]
    whole = data[data.names.index(item["name"])]
    assert torch.equal(item["image"], whole["image"]) and torch.equal(item["mask"], whole["mask"])
    seen = []
    monkeypatch.setattr(module, "fit", lambda task, *args, **kwargs: seen.append(task))
    train(recipe(data="synthetic:40", labels=0.25), tmp_path, progress=False)
    assert seen[0].data.names == parts[0.25].names and seen[0].hashes["train"] == parts[0.25].sha256()
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match="labels: expected more than 0 and at most 1"):
            recipe(labels=wrong)
