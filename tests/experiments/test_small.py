"""The search for light networks: its tables are what its plan says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from data_scripts.splits import load_splits
from rwkvlib.analysis import count_macs, count_parameters
from rwkvlib.engine.sweep import read_table
from rwkvlib.models import SMALL_CONFIGS
from rwkvlib.models.config import override
from rwkvlib.models.registry import create_model

FOLDER = Path(__file__).resolve().parents[2] / "experiments/small"
TABLES = {path.stem: read_table(path) for path in sorted(FOLDER.glob("*.yaml"))}
PLAN = (FOLDER / "PLAN.md").read_text(encoding="utf8")
SETS = ("glas", "kvasir", "busi")
SPLITS = (*SETS, "cvc_image", "cvc_video")


def recipe(table, name):
    return TABLES[table][name][0]


def arms(network):
    """The changes that are tried, of the first seed on GlaS."""
    found = (re.fullmatch(rf"glas_{network}_(\w+)_0", name) for name in TABLES["search"])
    return [match[1] for match in found if match]


@pytest.mark.parametrize("network", SMALL_CONFIGS)
def test_one_field_is_changed_and_nothing_else(network):
    for name in SETS:
        base = recipe("search", f"{name}_{network}_0")
        assert base.model == f"rwkv_unet_{network}" and not base.overrides
        for arm in arms(network):
            for seed in (0, 1, 2):
                config = recipe("search", f"{name}_{network}_{arm}_{seed}")
                assert replace(config, overrides={}, seed=0) == base
                assert config.overrides == recipe("search", f"glas_{network}_{arm}_0").overrides
                assert len(config.overrides) == 1
                assert override(SMALL_CONFIGS[network], config.overrides) != SMALL_CONFIGS[network], (
                    "it changes something"
                )


def test_both_networks_try_the_same_changes_and_the_plan_has_each():
    assert set(arms("n")) - {"groups_4"} == set(arms("p")) - {"groups_1"}
    assert len(TABLES["search"]) == 3 * 3 * (2 + len(arms("n")) + len(arms("p")))
    cells = [line.split("|")[1] for line in PLAN.splitlines() if line.startswith("| `")]
    tried = set(re.findall(r"`(\w+)`", "".join(cells)))
    assert tried - {"rwkv_unet_n", "rwkv_unet_p"} == {*arms("n"), *arms("p")}
    assert f"There are {len(arms('n') + arms('p'))} changes" in PLAN


def test_the_search_sees_no_test_image_and_the_rest_does():
    for table, runs in TABLES.items():
        for name, (config, test) in runs.items():
            assert test == ("validation" if table == "search" else "test"), name
            assert config.budget_seconds == 600 and config.size == 128 and config.choose == "best", name
            assert {"train", "validation", test} <= set(load_splits(Path(config.data).name)[config.split]), name


@pytest.mark.parametrize("network", SMALL_CONFIGS)
def test_every_arm_can_be_built_for_the_size(network):
    for arm in arms(network):
        config = recipe("search", f"glas_{network}_{arm}_0")
        model = create_model(config.model, **config.overrides)
        assert config.size % model.divisor == 0, arm
        if arm in ("kernel_3", "no_operator", "skips_added", "decoder_half", "ccm_slim", "no_ccm", "first_expansion_1"):
            base, shape = create_model(config.model), (1, 3, 128, 128)
            assert count_parameters(model) < count_parameters(base), arm
            assert count_macs(model, shape) < count_macs(base, shape), arm


def test_the_five_splits_differ_in_the_network_only():
    rivals = [f"{unet}{norm}" for unet in ("unet_narrow", "unet_n", "unet_p") for norm in ("", "_bn")]
    names = ["n", "n_no_operator", "p", "p_no_operator", *rivals]
    assert set(TABLES["five_splits"]) == {f"{s}_{a}_{seed}" for s in SPLITS for a in names for seed in (0, 1, 2)}
    for split in SPLITS:
        first = recipe("five_splits", f"{split}_n_0")
        assert (first.split == "split_image") == (split == "cvc_image")
        for arm in names:
            config = recipe("five_splits", f"{split}_{arm}_0")
            assert replace(config, model=first.model, overrides={}) == first
            assert config.overrides.get("norm") == ("batch" if arm.endswith("_bn") else None)
            assert (config.overrides.get("attention") is False) == arm.endswith("no_operator")
            own = arm.removesuffix("_no_operator").removesuffix("_bn")
            assert config.model == (own if "unet" in own else f"rwkv_unet_{own}")
    for name in SETS:
        assert recipe("search", f"{name}_n_0") == recipe("five_splits", f"{name}_n_0")
