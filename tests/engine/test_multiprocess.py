"""Two processes do what one does with the same batch."""

import itertools

import numpy as np
import pytest
import torch

from rwkvlib.data import load_data
from rwkvlib.engine.checkpoint import load_checkpoint, load_state, states
from rwkvlib.engine.config import load_config
from rwkvlib.engine.parallel import item_order
from rwkvlib.engine.train import Task, renew_statistics, train


def take(count, *arguments):
    return list(itertools.islice(item_order(*arguments), count))


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (4, 1), (2, 2), (1, 4)])
def test_the_same_images_make_a_step_for_any_number_of_processes(processes, accumulate, recipe):
    config = recipe(batch_size=8, accumulate=accumulate)
    whole = take(6, 20, recipe(batch_size=8), 0, 1, 0)  # 2 steps an epoch
    shares = [take(6 * accumulate, 20, config, 0, processes, rank) for rank in range(processes)]
    for step in range(6):
        parts = [shares[rank][step * accumulate + part] for part in range(accumulate) for rank in range(processes)]
        assert list(itertools.chain(*parts)) == whole[step]
    assert len(set(whole[0] + whole[1])) == 16 and whole[:2] != whole[2:4], "no image twice; another order every epoch"
    assert take(3, 20, config, 3, processes, 0) == shares[0][3 * accumulate :][:3], "from any step on"
    assert take(6, 20, recipe(batch_size=8, seed=1), 0, 1, 0) != whole


@pytest.fixture
def one_thread():
    """Sums that are cut over threads round otherwise, and AdamW divides small gradients by themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_processes_equal_one(tmp_path, write_recipe, start_process, one_thread):
    """DropPath off and BatchNorm in eval mode: the loss, its Dice sums included, is that of the global batch."""
    path = write_recipe(
        data="synthetic:16",
        batch_size=8,
        epochs=2,
        augment="none",
        freeze_batchnorm=True,
    )
    runs = {f"{n}": ["overrides.drop_path=0", f"accumulate={n}"] for n in (1, 2)}
    commands = [["train", str(path), *settings, f"out={tmp_path / name}"] for name, settings in runs.items()]
    free = ["freeze_batchnorm=false", "overrides.drop_path=0", "choose=last"]
    commands.append(["train", str(path), *free, f"out={tmp_path / 'free'}"])
    lines = ["import torch", "from rwkvlib.__main__ import main", "torch.set_num_threads(1)"]
    (tmp_path / "both.py").write_text("\n".join([*lines, f"for command in {commands!r}:", "    main(command)"]))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = start_process(*launch, tmp_path / "both.py")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert output.count("  batch_size: 8\n") == 3, "runs of two processes, not two runs each"
    # The statistics that are saved are those of the weights, over images of all processes.
    saved, _ = load_checkpoint(tmp_path / "free")
    before = {key: x.clone() for key, x in saved.state_dict().items()}
    data = load_data("synthetic:16", "train", size=32)
    task = Task(saved, data, "mask", None, None, None, "dice", {})
    assert renew_statistics(saved.train(), task, load_config(path, free), 2) == 8
    for key, x in saved.state_dict().items():
        torch.testing.assert_close(x, before[key], atol=1e-5, rtol=1e-4, msg=key)
    for name, settings in runs.items():
        one = train(load_config(path, settings), tmp_path / f"alone {name}", progress=False)
        a, b = (load_state(states(tmp_path / folder)[-1]) for folder in (name, f"alone {name}"))
        assert a[1]["progress"]["step"] == 4
        for row, expected in zip(a[1]["progress"]["log"], one, strict=True):
            np.testing.assert_allclose(row["loss"], expected["loss"], atol=1e-6)
        for key, x in a[0].items():
            torch.testing.assert_close(x, b[0][key], atol=1e-6, rtol=0, msg=key)


def test_what_cannot_be_shared_is_refused(tmp_path, recipe):
    with pytest.raises(ValueError, match="batch_size: expected a multiple of 3"):
        train(recipe(accumulate=3), tmp_path, progress=False)
    with pytest.raises(ValueError, match="sync_batchnorm: works between GPUs only"):
        train(recipe(sync_batchnorm=True), tmp_path, progress=False)
    with pytest.raises(ValueError, match="batch_size: expected at most the 8 training items, got 16"):
        train(recipe(batch_size=16), tmp_path, progress=False)
