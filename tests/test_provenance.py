"""Every stored number says where it came from."""

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from rwkvlib.provenance import git_commit, provenance, repeatable, write_result


def test_provenance_says_how_to_repeat_the_run():
    record = json.loads(json.dumps(provenance(7, "python benchmarks/wkv.py")))
    assert record["seed"] == 7 and record["command"] == "python benchmarks/wkv.py"
    assert record["versions"]["torch"] == str(torch.__version__)
    assert record["versions"]["numpy"] == np.__version__
    assert record["hardware"]["cpu"] and record["hardware"]["cores"] >= 1
    assert (record["hardware"]["gpu"] is None) == (not torch.cuda.is_available())
    time = datetime.fromisoformat(record["time"])
    assert time.utcoffset() == timedelta(0) and abs(datetime.now(timezone.utc) - time) < timedelta(minutes=1)


def test_the_command_is_this_process_by_default():
    assert provenance(None)["command"] == " ".join(["python", *sys.argv])


def test_a_recorded_command_can_be_typed_again():
    words = [
        "train",
        "configs/a.yaml",
        "out=runs/t",
        "data=/srv/somebody/x.zip",
        "overrides.depths=[1, 1]",
        "~/b c.png",
    ]
    line = "train configs/a.yaml out=runs/t data=x.zip 'overrides.depths=[1, 1]' 'b c.png'"
    assert repeatable(words) == line


@pytest.mark.parametrize("seed", [1.5, "1", True])
def test_a_seed_that_is_no_int_is_refused(seed):
    with pytest.raises(TypeError, match="seed must be an int or None"):
        provenance(seed)


def test_commit_is_read_from_the_checkout_and_marks_changes(tmp_path):
    assert git_commit(tmp_path) is None, "not a checkout"

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"


def test_result_is_written_whole_and_plain(tmp_path):
    result = {
        "provenance": {"seed": 0},
        "dice": np.float32(0.5),
        "times": torch.tensor([1.0, 2.0]),
        "rows": [(np.int64(3), float("nan"))],
    }
    path = write_result(tmp_path / "new/run.json", result)
    assert json.loads(path.read_text()) == {
        "provenance": {"seed": 0},
        "dice": 0.5,
        "times": [1.0, 2.0],
        "rows": [[3, None]],
    }
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_result(tmp_path / "run.json", {"provenance": {}, "value": 1})
    with pytest.raises(TypeError):
        write_result(path, {"provenance": {}, "value": object()})
    with pytest.raises(ValueError, match="needs a 'provenance' entry"):
        write_result(path, {"value": 2})
    assert json.loads(path.read_text())["value"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_importing_the_library_does_not_import_matplotlib():
    code = (
        "import sys, rwkvlib, rwkvlib.provenance; sys.exit('matplotlib' in sys.modules or 'ipywidgets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Measured with changes that were not committed yet; nothing new may be.
DIRTY = {f"audit/{name}.json" for name in ("acdc", "busi", "cvc_clinicdb", "glas", "isic2017", "kvasir_seg")}
DIRTY |= {"bench/cuda_resources.json", "bench/efficiency_cpu.json", "training/synthetic_t_128.json"}


def test_every_stored_result_says_where_it_comes_from():
    folder = Path(__file__).parents[1] / "results"
    without, dirty = set(), set()
    for path in sorted(folder.rglob("*.json")):
        if path.name == "table.json":  # over the runs beside it, each of which has its own
            continue
        name, found = path.relative_to(folder).as_posix(), json.loads(path.read_text(encoding="utf8"))
        if not isinstance(found, dict) or "provenance" not in found:
            without.add(name)
            continue
        record = found["provenance"]
        assert {"seed", "command", "time", "commit", "hardware", "versions"} <= set(record), name
        assert record["seed"] is None or isinstance(record["seed"], int), name
        assert record["command"].strip(), name
        assert datetime.fromisoformat(record["time"]).tzinfo, f"{name}: {record['time']!r}"
        assert record["hardware"]["cpu"] and {"python", "torch"} <= set(record["versions"]), name
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", record["commit"] or ""), f"{name}: {record['commit']!r}"
        if record["commit"].endswith("-dirty"):
            dirty.add(name)
    assert len(without) + len(dirty) < sum(1 for _ in folder.rglob("*.json")) / 2, "results/ was found"
    assert not without and dirty == DIRTY
