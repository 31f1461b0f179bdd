"""Experiments are scripts, not modules: a fixture loads one."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def load_experiment():
    """Returns a function that imports the script of a name."""

    def load(name: str):
        path = Path(__file__).resolve().parents[2] / "experiments" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
