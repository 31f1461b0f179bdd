"""A run that is interrupted, at any point and in any way, ends as if it had not been."""

import errno
import json
import os
import random
import shutil
import signal
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rwkvlib.__main__ import main
from rwkvlib.data import SegmentationData, synthetic_polyps
from rwkvlib.engine import checkpoint
from rwkvlib.engine import train as module
from rwkvlib.engine.checkpoint import load_state, states
from rwkvlib.engine.config import ADDED
from rwkvlib.engine.train import train


def assert_same_end(a, b):
    """The last weights, the chosen weights, the optimiser and the log of two runs are equal to the bit."""
    (weights_a, state_a), (weights_b, state_b) = (load_state(states(run)[-1]) for run in (a, b))
    assert state_a["progress"]["step"] == state_b["progress"]["step"]
    chosen_a, chosen_b = (load_file(run / "model.safetensors") for run in (a, b))
    for x, y in ((weights_a, weights_b), (chosen_a, chosen_b)):
        assert x.keys() == y.keys()
        for key in x:
            assert torch.equal(x[key], y[key]), key
    for i, moments in state_a["optimiser"]["state"].items():
        for key, x in moments.items():
            assert torch.equal(x, state_b["optimiser"]["state"][i][key])
    log_a, log_b = (json.loads((run / "log.json").read_text()) for run in (a, b))
    assert [{**row, "seconds": 0} for row in log_a] == [{**row, "seconds": 0} for row in log_b]


def test_a_run_killed_at_a_random_step_ends_with_the_same_weights(tmp_path, write_recipe, start_process):
    # 5 steps an epoch and 3 from one checkpoint to the next: most are inside an epoch.
    path = write_recipe(data="synthetic:20", epochs=12, save_every=3, augment="strong")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    dice = random.Random(0)  # training itself seeds the module's
    target, deadline = dice.randrange(3, 31, 3), time.monotonic() + 90
    process = start_process("-m", "rwkvlib", "train", path, f"out={killed}")
    while not any(int(state.name[5:]) >= target for state in states(killed)):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint to kill the run at"
        time.sleep(0.005)
    time.sleep(dice.uniform(0, 0.1))
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stdout.read()
    step = load_state(states(killed)[-1])[1]["progress"]["step"]
    print("killed after the checkpoint of step", step)
    assert 3 <= step < 60 and step % 3 == 0
    main(["train", str(path), f"out={whole}"])
    begun = (killed / "provenance.json").read_bytes()
    main(["train", str(path), f"out={killed}", "resume=true"])
    assert (killed / "provenance.json").read_bytes() == begun, "of the start, which a kill does not cost"
    assert_same_end(whole, killed)
    assert not [f for f in tmp_path.rglob("*tmp*")], "nothing temporary is left"


@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "ema": 0.9, "validate_every": 3}], ids=["plain", "with all"])
def test_stopping_after_any_step_changes_nothing(more, tmp_path, recipe, monkeypatch):
    config = recipe(epochs=2, save_every=1, **more)
    train(config, tmp_path / "whole", progress=False)
    for stop in (1, 2, 3):
        calls = iter(range(100))

        def dying(*args, **kwargs):
            folder = checkpoint.save_state(*args, **kwargs)
            if next(calls) == stop - 1:  # noqa: B023
                raise KeyboardInterrupt
            return folder

        monkeypatch.setattr(module, "save_state", dying)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / f"{stop}", progress=False)
        monkeypatch.undo()
        assert int(states(tmp_path / f"{stop}")[-1].name[5:]) == stop
        train(config, tmp_path / f"{stop}", resume=True, progress=False)
        assert_same_end(tmp_path / "whole", tmp_path / f"{stop}")


def test_a_run_stops_when_told_and_goes_on(tmp_path, recipe):
    assert [row["epoch"] for row in train(recipe(), tmp_path, stop_after=1, progress=False)] == [1]
    log = train(recipe(), tmp_path, resume=True, progress=False)
    assert [row["epoch"] for row in log] == [1, 2, 3] and log[-1]["lr"] < log[0]["lr"]
    assert train(recipe(), tmp_path, resume=True, progress=False) == log, "a finished run stays as it is"


def test_a_run_is_not_overwritten_nor_mixed(tmp_path, recipe):
    train(recipe(epochs=1), tmp_path, progress=False)
    with pytest.raises(FileExistsError, match=r"out: .* holds a run already"):
        train(recipe(epochs=1), tmp_path)
    with pytest.raises(ValueError, match=r"resume: .* is of another config"):
        train(recipe(epochs=2), tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume: expected true, false or previous, got 'yes'"):
        train(recipe(epochs=1), tmp_path, resume="yes")


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "sha256.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_taken_when_asked(name, damage, tmp_path, recipe, request):
    train(recipe(), tmp_path / "run", progress=False, stop_after=2)
    train(recipe(), tmp_path / "whole", progress=False)
    last, file = states(tmp_path / "run")[-1], states(tmp_path / "run")[-1] / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[len(content) // 2] ^= 0x40
        file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(ValueError) as error:
        train(recipe(), tmp_path / "run", resume=True, progress=False)
    previous = states(tmp_path / "run")[0]
    assert str(error.value).startswith(f"resume: the checkpoint '{last}' is damaged: ")
    assert f"resume=previous goes on from '{previous}'" in str(error.value)
    train(recipe(), tmp_path / "run", resume="previous", progress=False)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_without_a_previous_checkpoint_there_is_nothing_to_fall_back_to(tmp_path, recipe):
    train(recipe(epochs=1), tmp_path, progress=False)
    with pytest.raises(FileNotFoundError, match=r"resume: .* has no checkpoint before its last one"):
        train(recipe(epochs=1), tmp_path, resume="previous", progress=False)


def test_a_full_disk_loses_no_checkpoint(tmp_path, recipe, monkeypatch):
    train(recipe(), tmp_path / "whole", progress=False)
    run, full, fsync = tmp_path / "run", [], os.fsync

    def no_space(descriptor):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    train(recipe(), run, stop_after=2, progress=False)
    before = [path.read_bytes() for folder in states(run) for path in sorted(folder.iterdir())]
    chosen = (run / "model.safetensors").read_bytes()
    full.append(True)
    with pytest.raises(OSError, match=r"No space left on device: .*") as error:
        train(recipe(), run, resume=True, progress=False)
    assert error.value.errno == errno.ENOSPC and "kept" in str(error.value)
    with pytest.raises(OSError, match="the earlier ones are kept"):
        checkpoint.save_state(run, 99, torch.nn.Linear(1, 1), {}, {})
    assert [path.read_bytes() for folder in states(run) for path in sorted(folder.iterdir())] == before
    assert (run / "model.safetensors").read_bytes() == chosen and not list(run.rglob("*tmp*"))
    full.clear()
    train(recipe(), run, resume=True, progress=False)
    assert_same_end(tmp_path / "whole", run)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_items(tmp_path, recipe, monkeypatch):
    train(recipe(), tmp_path, stop_after=1, progress=False)
    get = SegmentationData.__getitem__

    def poisoned(self, i):
        item = get(self, i)
        if item["name"] == "synthetic_5":
            item["image"] = item["image"] * float("nan")
        return item

    monkeypatch.setattr(SegmentationData, "__getitem__", poisoned)
    with pytest.raises(FloatingPointError) as error:
        train(recipe(augment="none"), tmp_path / "other", progress=False)
    assert "the loss is nan in step" in str(error.value) and "the last checkpoint is None" in str(error.value)
    with pytest.raises(FloatingPointError) as error:
        train(recipe(), tmp_path, resume=True, progress=False)
    names = str(error.value).partition("of the items ")[2].partition(";")[0].split(", ")
    assert "synthetic_5" in names and len(names) == 4
    assert "step_00000002" in str(error.value) and len(states(tmp_path)) == 1
    assert all(x.isfinite().all() for x in load_state(states(tmp_path)[-1])[0].values())


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({}, dict(lr=0.1), "lr is 0.001 in the run and 0.1 in the recipe$"),
        ({}, dict(overrides={}), r"overrides is \{'depths': .*\} in the run and \{\} in the recipe"),
        ({}, dict(epochs=9), "epochs is 3 in the run and 9 in the recipe; the schedule 'one_cycle' .* can be extended"),
        (
            dict(schedule="constant"),
            dict(schedule="constant", lr=0.1, epochs=9),
            "the one given: lr is 0.001 in the run",
        ),
    ],
)
def test_another_recipe_is_named_by_its_field(first, then, message, tmp_path, recipe):
    train(recipe(**first), tmp_path, stop_after=1, progress=False)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=rf"resume: '.*config\.json' is of another config .*{message}"):
        train(recipe(**then), tmp_path, resume=True, progress=False)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_with_a_constant_rate_can_be_extended(tmp_path, recipe):
    """Sources: nnUNet#1848, nnUNet#1745."""
    train(recipe(schedule="constant", epochs=2), tmp_path / "a", progress=False)
    train(recipe(schedule="constant", epochs=4), tmp_path / "a", resume=True, progress=False)
    train(recipe(schedule="constant", epochs=4), tmp_path / "b", progress=False)
    assert_same_end(tmp_path / "b", tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["epochs"] == 4
    train(recipe(schedule="constant", epochs=4, steps=9), tmp_path / "a", resume=True, progress=False)
    train(recipe(schedule="constant", steps=9), tmp_path / "c", progress=False)
    assert_same_end(tmp_path / "c", tmp_path / "a")


@pytest.fixture
def own_data(tmp_path):
    """Writes a data set of eight images and two for validation, drawn from `seed`."""

    def write(name, seed=0, validation_seed=100):
        root = tmp_path / name
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        rows = ["name,split"]
        for i in range(10):
            image, mask = synthetic_polyps(seed + i if i < 8 else validation_seed + i, 32)
            Image.fromarray(image).save(root / "images" / f"{i}.png")
            Image.fromarray(mask).save(root / "masks" / f"{i}.png")
            rows.append(f"{i},{'train' if i < 8 else 'validation'}")
        (root / "items.csv").write_text("\n".join(rows))
        return str(root)

    return write


def test_the_data_may_move_but_not_change(tmp_path, recipe, own_data):
    run = tmp_path / "run"
    train(recipe(data=own_data("there")), tmp_path / "whole", progress=False)
    train(recipe(data=own_data("here")), run, stop_after=1, progress=False)
    weights = load_state(states(run)[-1])[0]
    for changed, what in ((own_data("new", seed=50), "train"), (own_data("newer", validation_seed=200), "validation")):
        with pytest.raises(ValueError, match=f"resume: the {what} data of '.*newe?r?' are others than"):
            train(recipe(data=changed), run, resume=True, progress=False)
    assert len(states(run)) == 1 and json.loads((run / "config.json").read_text())["data"] == str(tmp_path / "here")
    assert all(torch.equal(x, weights[key]) for key, x in load_state(states(run)[-1])[0].items())
    (tmp_path / "here").rename(tmp_path / "moved")
    train(recipe(data=str(tmp_path / "moved"), save_every=1), run, resume=True, progress=False)
    assert_same_end(tmp_path / "whole", run)


def test_finished_weights_without_checkpoints_are_not_overwritten(tmp_path, recipe):
    train(recipe(epochs=1), tmp_path, progress=False)
    shutil.rmtree(tmp_path / "checkpoints")  # as people do for the space
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(recipe(epochs=1, seed=1), tmp_path, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_runs_from_before_a_field_go_on_as_they_were(tmp_path, recipe):
    fields = dict(batchnorm_images=0)
    train(recipe(**fields), tmp_path, stop_after=1, progress=False)
    held = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({f: v for f, v in held.items() if f not in ADDED}))
    with pytest.raises(ValueError, match=r"labels is 1\.0 in the run and 0\.5 in the recipe"):
        train(recipe(labels=0.5, **fields), tmp_path, resume=True, progress=False)
    assert train(recipe(**fields), tmp_path, resume=True, progress=False)[-1]["step"] == 6
