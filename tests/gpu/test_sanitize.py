"""The script around compute-sanitizer, without a device: the sanitizer is faked."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import sanitize

CLEAN = "3 passed in 1 s\n========= ERROR SUMMARY: 0 errors"
RACES = "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)"


def fake_sanitizer(folder: Path, output: str, status: int) -> str:
    path = folder / "compute-sanitizer"
    path.write_text(f"#!{sys.executable}\nimport sys\nprint({output!r}, sys.argv[1:])\nsys.exit({status})\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("report", "expected"),
    [(CLEAN, 0), (RACES, 2), ("========= ERROR SUMMARY: 17 errors", 17), ("Segmentation fault", None), ("", None)],
)
def test_errors_are_counted(report, expected):
    assert sanitize.errors_in(report) == expected


@pytest.mark.parametrize(
    ("output", "status", "exit_status"),
    [
        (CLEAN, 0, 0),
        (CLEAN, 1, 1),  # a test has failed
        (CLEAN.replace("0 errors", "4 errors"), 9, 1),
        ("1 passed\n" + RACES, 9, 1),
        ("no summary", 0, 1),
        ("========= ERROR SUMMARY: 0 errors", 0, 1),  # no test was run
    ],
)
def test_exit_status_tells_whether_all_is_clean(output, status, exit_status, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sanitize, "find_sanitizer", lambda: fake_sanitizer(tmp_path, output, status))
    monkeypatch.setattr(sanitize, "provenance", lambda seed: {})
    out = tmp_path / "out.json"
    assert sanitize.main(["--out", str(out)]) == exit_status
    runs = json.loads(out.read_text())["runs"]
    assert [run["tool"] for run in runs] == ["memcheck", "racecheck"]
    assert "'--tool', 'racecheck'" in runs[1]["end_of_report"]


def test_missing_device_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sanitize.main(["--out", str(tmp_path / "out.json")]) == 1
    assert "needs a CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_sanitizer_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(sanitize.shutil, "which", lambda name, path: None)
    assert sanitize.main(["--out", str(tmp_path / "out.json")]) == 1
    assert "install the CUDA toolkit" in capsys.readouterr().err


def test_selected_tests_exist():
    text = "".join(
        path.read_text() for path in (sanitize.HERE, sanitize.HERE.parent / "wkv") for path in path.glob("test_*.py")
    )
    for words in sanitize.SELECT.split(" or "):
        assert words in text, words
