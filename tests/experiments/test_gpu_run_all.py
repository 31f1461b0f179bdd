"""The plan for a GPU, rehearsed without one: parts that end well, fail, hang and are killed, and a second call."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

from rwkvlib import create_model
from rwkvlib.engine.checkpoint import load_encoder

ROOT = Path(__file__).parents[2]


def load():
    spec = importlib.util.spec_from_file_location("run_all", ROOT / "experiments" / "gpu" / "run_all.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run_all = load()


def stored(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf8"))


def part(name, code, limit=60.0, **more):
    return run_all.Part(name, limit, (sys.executable, "-c", code, "{out}"), **more)


GOOD = "import sys, json; json.dump({'found': 7, 'file': sys.argv[1]}, open(sys.argv[1], 'w')); print('was here')"


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return False
        except OSError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see other processes")
def test_a_part_that_fails_hangs_or_is_killed_costs_only_itself(tmp_path):
    child = tmp_path / "child.pid"
    hangs = f"""if True:
        import subprocess, sys, time
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(child)!r}, "w").write(str(process.pid))
        print("hanging", flush=True)
        time.sleep(600)"""
    parts = [
        part("fails", "print('about to fail'); raise SystemExit(3)"),
        part("hangs", hangs, limit=4.0),
        part("killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        run_all.Part("missing", 60, ("no-such-tool", "--version")),
        part("good", GOOD),
    ]
    began = time.monotonic()
    out = tmp_path / "out"
    statuses = run_all.run_all(parts, out, budget=120)
    assert time.monotonic() - began < 60
    assert statuses["fails"] == "failed with 3"
    assert statuses["hangs"] == "out of time"
    assert statuses["killed"] == "killed by signal 9"
    assert statuses["missing"].startswith("not started: ")
    assert statuses["good"] == "done"
    for name, status in statuses.items():
        entry = stored(out, name)
        assert entry["status"] == status and entry["provenance"]["versions"]
    assert stored(out, "good")["result"] == {"found": 7, "file": "good.json"}  # no path of this machine
    log = (out / "log.txt").read_text(encoding="utf8")
    assert "about to fail" in log and "hanging" in log and "was here" in log
    assert not alive(int(child.read_text()))  # what the part had started ended with it


def test_a_second_call_skips_what_is_done_and_tries_again_what_failed(tmp_path):
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); "
    parts = [part("good", count + GOOD), part("bad", "raise SystemExit(1)")]
    run_all.run_all(parts, tmp_path / "out", budget=60)
    statuses = run_all.run_all([parts[0], part("bad", GOOD)], tmp_path / "out", budget=60)
    assert statuses == {"good": "done before", "bad": "done"}
    assert (tmp_path / "count").read_text() == "x"


def test_no_part_begins_without_time(tmp_path):
    statuses = run_all.run_all([part("late", GOOD)], tmp_path, budget=1)
    assert statuses == {"late": "no time left"}
    assert not (tmp_path / "late.json").exists()


def test_output_of_pytest_is_read_even_where_it_was_cut():
    parallel = (
        "tests/a.py::x \n[gw0] [  1%] PASSED tests/a.py::x \n[gw1] [  2%] FAILED tests/b.py::y[1 2]\ntests/c.py::z"
    )
    assert run_all.tests_in(parallel) == dict(passed=1, failed=1, error=0, skipped=0, not_passed=["tests/b.py::y[1 2]"])
    alone = "tests/a.py::x PASSED       [ 50%]\ntests/b.py::y ERROR       [100%]"
    assert run_all.tests_in(alone) == dict(passed=1, failed=0, error=1, skipped=0, not_passed=["tests/b.py::y"])


def test_table_of_the_profiler_is_read():
    head = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
    text = f'noise\n{head}\n"0","f","t","ns","1,5"\n"1","g","t","ns","2"'
    assert run_all.ncu_rows(text) == {"kernels": [{"kernel": "f", "t [ns]": "1,5"}, {"kernel": "g", "t [ns]": "2"}]}


def test_runs_go_in_pairs_seed_by_seed_where_their_data_are(tmp_path):
    (tmp_path / "kvasir_seg.zip").touch()
    (tmp_path / "busi.zip").touch()
    found = [[run_all.name_of(run) for run in pair] for pair in run_all.pairs(run_all.TABLE, tmp_path)]
    assert found == [[f"{name}_t_{seed}", f"{name}_unet_{seed}"] for seed in (0, 1, 2) for name in ("kvasir", "busi")]


def test_too_little_time_starts_no_pair(tmp_path):
    (tmp_path / "glas.zip").touch()
    status = run_all.train_pairs(run_all.TABLE, tmp_path, tmp_path, seconds=100)
    assert status == "the time did not do for 3 pairs"
    assert stored(tmp_path, "training")["result"] == {"runs": {}, "failed": {}}


def test_results_by_another_recipe_are_not_taken_for_the_tables_own(tmp_path):
    (tmp_path / "glas.zip").touch()
    ((first, _), *_) = run_all.pairs(run_all.TABLE, tmp_path)
    held = {"glas_t_0": {"table": run_all.recipe_of(dict(first, budget_seconds=1))}}
    (tmp_path / "training.json").write_text(json.dumps({"result": {"runs": held}}))
    status = run_all.train_pairs(run_all.TABLE, tmp_path, tmp_path, seconds=1000)
    assert "glas_t_0 by another recipe" in status and "choose another --out" in status
    assert stored(tmp_path, "training") == {"result": {"runs": held}}


def test_the_whole_plan_on_a_cpu(tmp_path):
    """Every part is started; those that need a GPU say so, and the training scores both networks of a pair."""
    assert run_all.main(["--rehearse", "--budget", "3000", "--out", str(tmp_path)]) == 1
    statuses = {p.name: stored(tmp_path, p.name)["status"] for p in run_all.plan() if not p.extra}
    well = ("doctor", "tests", "operator", "first_use", "models", "training")
    assert {name: statuses[name] for name in well} == dict.fromkeys(well, "done")
    assert statuses["sanitizer"] == "failed with 1" and "needs a CUDA device" in (tmp_path / "log.txt").read_text()
    assert stored(tmp_path, "doctor")["result"]["ok"] is True
    assert stored(tmp_path, "tests")["result"]["passed"] > 10
    runs = stored(tmp_path, "training")["result"]["runs"]
    assert set(runs) == {"synthetic_t_0", "synthetic_unet_0"}
    for run in runs.values():
        assert run["log"][-1]["step"] >= 1 and run["cases_csv"].startswith("name,class,dice")
    files = list(tmp_path.iterdir())
    assert len(files) <= 8 and sum(file.stat().st_size for file in files) < 2**20
    again = run_all.main(["--rehearse", "--out", str(tmp_path), "--parts", "doctor", "training"])
    assert again == 0


def test_pretraining_brings_its_encoder_back(tmp_path):
    assert run_all.main(["--rehearse", "--out", str(tmp_path), "--parts", "teacher"]) == 0
    assert stored(tmp_path, "teacher")["result"]["log"][-1]["step"] >= 1
    model = create_model("rwkv_unet_t", depths=(1, 1, 2, 2), dims=(8, 8, 16, 16))
    assert all(name.startswith("encoder.") for name in load_encoder(model, tmp_path / "teacher.safetensors").loaded)
