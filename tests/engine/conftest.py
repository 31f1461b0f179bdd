"""A recipe that takes a second."""

import os
import subprocess
import sys

import pytest
import torch

from rwkvlib.engine.config import TrainConfig
from tests.conftest import TINY


@pytest.fixture
def recipe():
    """A function from the fields that differ to a `TrainConfig` of a tiny model on eight synthetic images."""

    def make(**fields):
        given = dict(data="synthetic:8", size=32, epochs=3, batch_size=4, augment="strong", overrides=TINY) | fields
        return TrainConfig(**given)

    return make


@pytest.fixture
def start_process():
    """A function from arguments of Python to a process that runs them, with as many threads as this one."""

    def start(*arguments):
        env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen([sys.executable, *map(str, arguments)], env=env, **pipes)

    return start
