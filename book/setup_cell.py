# Setup: installs the library where it is missing (Colab), never a torch.
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("rwkvlib") is None:
    source = "git+https://github.com/rwkv-unet-book/rwkv-unet-book@v0.1.0"
    source = f"rwkvlib[cpu,cuda,train,export,teacher,book-plots] @ {source}"
    there = importlib.metadata.distributions(name="torch")
    pins = [f"torch=={found.version}" for found in there]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, source, *pins], check=True)

import matplotlib.pyplot as plt
import numpy as np
import torch

from rwkvlib.bookkit import live, read_result, table, use_style

FULL = os.environ.get("RWKVLIB_PROFILE") == "full"  # longer runs
rng = np.random.default_rng(0)
torch.manual_seed(0)
use_style()
