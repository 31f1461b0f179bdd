"""The report says what the files say: on invented runs whose means and differences are known."""

import json

import numpy as np
import pandas as pd
import pytest

from rwkvlib import report
from rwkvlib.bookkit import results

ORIGIN = {"hardware": {"cpu": "x", "threads": 1}, "versions": {"torch": "2"}, "commit": "0" * 40, "time": "now"}


def dice(data, model, seed, n):
    """T is 0.05 worse on all sets and 0.02 better elsewhere; seeds differ by 0.01."""
    base = np.random.default_rng(len(data)).uniform(0.5, 0.8, n)
    noise = np.random.default_rng([len(data), len(model), seed]).normal(0, 0.01, n)
    return base + noise + 0.01 * seed - 0.05 * (model == "t") + 0.07 * (model == "t") * data.startswith("to ")


def write_run(folder, name, cases, steps=10, seconds=20.0):
    folder.mkdir(exist_ok=True)
    (folder / "table.json").write_text("[]")
    cases.to_csv(folder / f"{name}.csv", index=False)
    log = [{"step": steps, "seconds": seconds, "dice": 0.5}]
    result = dict(log=log, weights={"dice": 0.5}, seconds=2 * seconds, config_hash="c" * 64)
    result |= dict(data_hash={"test": "d" * 64}, provenance=ORIGIN)
    (folder / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def invented(tmp_path, monkeypatch):
    """results/ with 30 runs in a folder of its own; the paper's tables are the real ones."""
    root = tmp_path / "results"
    for folder in ("reproduction", "transfer", "protocol"):
        (root / folder).mkdir(parents=True)
    (root / "reproduction/table.json").write_text("[]")
    for data in report.SETS:
        extra = {"cvc_image": {"sequence": np.arange(40) // 4}, "cvc_sequence": {"sequence": np.arange(40) // 14}}
        extra |= {"busi": {"group": np.arange(40) // 2}}
        for model in report.MODELS:
            for seed in range(3):
                name, values = f"{data}_{model}_{seed}", dice(data, model, seed, 40)
                cases = pd.DataFrame({"name": [str(i) for i in range(40)], "class": 1, **extra.get(data, {})})
                run = cases.assign(dice=values, hd95=10 - values, truth=1)
                run.loc[0, "hd95"] = np.nan  # missed
                run.to_csv(root / f"reproduction/{name}.csv", index=False)
                log = [{"step": s, "seconds": 3.0 * s, "dice": 0.1 * s} for s in (1, 2)]
                result = dict(log=log, weights={"dice": 0.2}, seconds=7.0, config_hash="c" * 64)
                result |= dict(data_hash={"test": "d" * 64}, provenance=ORIGIN)
                (root / f"reproduction/{name}.json").write_text(json.dumps(result))
                rules = cases.assign(truth=1, dice_flips=values + 0.01, hd95_flips=10 - values, hd95_own_size=1.0)
                rules = rules.assign(dice_paper=values, dice_own_size=values - 0.02, dice_paper_own_size=values - 0.03)
                rules["hd95_paper"] = np.where(rules["name"] == "0", 0.0, 8 - values)
                rules.to_csv(root / f"protocol/{name}.csv", index=False)
                kept = [dict(step=s, validation=v, test=t) for s, v, t in ((1, 0.1, 0.9), (2, 0.2, 0.8))]
                (root / f"protocol/{name}.json").write_text(json.dumps(dict(kept=kept)))
                if data in ("kvasir", "cvc_sequence"):
                    ways = {"kvasir": ("kvasir_seg", "cvc_clinicdb"), "cvc_sequence": ("cvc_clinicdb", "kvasir_seg")}
                    way = dict(zip(("trained_on", "tested_on"), ways[data], strict=True))
                    cases.assign(dice=dice(f"to {data}", model, seed, 40)).to_csv(root / f"transfer/{name}.csv")
                    (root / f"transfer/{name}.json").write_text(json.dumps(way))
    (root / "bench").mkdir()
    rows = [dict(model=m, size=s, seconds=s * (i + 1) / 1e4) for s in (128, 256) for i, m in enumerate(report.NETWORKS)]
    (root / "bench/efficiency_cpu.json").write_text(json.dumps({"rows": rows}))
    real = results.result_folders()
    monkeypatch.setattr(results, "result_folders", lambda: [root, *real])
    return root


def test_scores_are_means_over_cases_and_seeds_with_the_papers_beside(invented):
    found = report.scores().set_index(["set", "model"])
    assert list(found.index) == [(s, m) for s in report.SETS for m in report.MODELS]
    row = found.loc["glas", "t"]
    expected = [dice("glas", "t", seed, 40).mean() for seed in range(3)]
    assert row["seeds"] == pytest.approx(expected, abs=1e-6) and row["mean"] == pytest.approx(np.mean(expected))
    assert row["low"] < row["mean"] < row["high"] and row["paper"] == 0.9196 and row["paper_sd"] == 0.0031
    assert list(found.loc[["glas", "cvc_image", "busi"], "unit"].unique()) == ["images", "videos", "groups"]
    assert found.loc["cvc_sequence", "paper"].isna().all() and found.loc["cvc_image", "units"].eq(10).all()
    assert report.scores("hd95").set_index(["set", "model"]).loc["glas", "t"]["undefined"] == 3


def test_comparisons_find_the_difference_and_correct_for_their_number(invented):
    found = report.comparisons().set_index("set")
    assert found["difference"].between(-0.06, -0.04).all() and (found["won"] == 0).all()
    assert (found["p_holm"] >= found["p"]).all() and found.loc["glas", "p_holm"] < 1e-6
    # Three videos: no test of ranks can fall below 0.05.
    assert found.loc["cvc_sequence", "p"] == found.loc["cvc_sequence", "least_p"] == 0.25
    elsewhere = report.transfer_comparisons()
    assert list(elsewhere["way"]) == ["cvc_clinicdb to kvasir_seg", "kvasir_seg to cvc_clinicdb"]
    assert elsewhere["difference"].between(0.01, 0.03).all() and len(report.transfer()) == 4


def test_rules_of_scoring_are_differences_of_the_same_predictions(invented):
    found = report.protocol().set_index(["rule", "score", "set", "model"])["difference"].sort_index()
    for rule, score, expected in [
        ("flips at test time", "dice", 0.01),
        ("masks at 256 instead of 128 pixels", "dice", -0.02),
        ("cubic splines and nearest instead of bilinear", "dice", -0.01),
        ("published rules for empty masks", "dice", 0),
        ("HD95 of both directions together", "hd95", -2),
        ("weights chosen on test", "dice", 0.1),
    ]:
        assert np.allclose(found[rule, score], expected, atol=1e-6), rule
    # One of 40 cases is missed and counts 0.
    mean = (8 - np.concatenate([dice("glas", "t", s, 40)[1:] for s in range(3)])).mean()
    assert found["misses count as HD95 0", "hd95", "glas", "t"] == pytest.approx(-mean / 40, abs=1e-4)
    split = report.split_effect().set_index("model")
    assert (split["low"] < split["difference"]).all() and (split["difference"] < split["high"]).all()


def test_training_and_curves_come_from_the_logs(invented):
    row = report.training().set_index(["set", "model"]).loc["glas", "t"]
    assert (row["steps_min"], row["steps_max"], row["seconds_per_step_max"]) == (2, 2, 3)
    assert len(report.curves()) == 60


def test_latency_is_also_a_multiple_of_the_u_nets(invented):
    found = report.efficiency().set_index(["model", "size"])["times_unet"]
    # The U-Net is the fourth.
    assert np.allclose(found["rwkv_unet_t"], 1 / 4) and np.allclose(found["unet"], 1)


def test_ablations_are_compared_with_the_full_model(invented):
    for model in report.ABLATIONS:
        for seed in range(3):
            values = dice("glas", "t", seed, 40) - 0.1 * (model == "no_ccm") - 0.02 * (model == "no_attention")
            cases = pd.DataFrame({"name": [str(i) for i in range(40)], "class": 1, "dice": values})
            seconds = 20.0 if model == "no_attention" else 40.0
            write_run(invented / "ablations", f"glas_{model}_{seed}", cases, seconds=seconds)
    found = report.ablations().set_index("variant")
    assert list(found.index) == list(report.ABLATIONS) and np.isnan(found.loc["full", "difference"])
    assert found.loc["no_ccm", "difference"] == pytest.approx(-0.1) and found.loc["no_ccm", "p_holm"] < 1e-6
    assert found.loc["decay_0", "difference"] == 0 and found.loc["decay_0", "p_holm"] == 1
    assert found.loc["no_attention", "step"] == 0.5 and found.loc["full", "step"] == 1
    assert len(report.ablations_figure().axes[0].get_yticklabels()) == len(report.ABLATIONS) - 1
    means = report.by_seed()
    assert (means.loc["no_ccm"] - means.loc["full"]).to_list() == pytest.approx([-0.1] * 3)
    assert len(report.seeds_figure().axes[0].lines) == 6
    effects = report.interaction().set_index("effect")["difference"]
    expected = [0.02, 0, 0, -0.02, 0.02]
    assert list(effects) == pytest.approx(expected, abs=1e-9) and effects.index[-1] == "interaction"


def test_an_hour_is_held_against_five_minutes_and_the_paper(invented):
    names = [str(i) for i in range(40)]
    for model in report.MODELS:
        values = dice("kvasir", model, 0, 40) + 0.1
        cases = pd.DataFrame({"name": names, "class": 1, "dice": values})
        write_run(invented / "longer", f"kvasir_{model}_0", cases, steps=100, seconds=3600.0)
    row = report.longer().set_index("model").loc["t"]
    assert row["mean"] == pytest.approx(row["short"] + 0.1, abs=1e-5) and row["low"] < row["mean"] < row["high"]
    assert list(row[["steps", "short_steps", "minutes", "paper"]]) == pytest.approx([100, 2, 60, 0.9126])
    assert row["closed"] == pytest.approx(0.1 / (0.9126 - row["short"]), abs=1e-4)
    compared = report.longer_comparison().set_index("set").loc["kvasir"]
    assert compared["difference"] == pytest.approx(-0.05, abs=0.01) and compared["units"] == 40
    assert len(report.longer_figure().axes[0].lines) == 4


def test_the_rules_for_empty_masks_are_counted(invented):
    # Two patients of three slices: one with the class and found, one without and found, one without and not found; the
    # U-Net finds nothing where there is nothing, and misses one of the classes that are there.
    cases = pd.DataFrame({"name": list("abcdef"), "class": 1, "patient": [1, 1, 1, 2, 2, 2], "truth": [9, 0, 0] * 2})
    rules = {
        "t": dict(predicted=[9, 5, 0] * 2, dice=[0.8, 0, np.nan] * 2, dice_paper=[0.8, 1, 0] * 2),
        "unet": dict(predicted=[9, 0, 0, 0, 0, 0], dice=[0.8, np.nan, np.nan, 0, np.nan, np.nan]),
    }
    rules["unet"]["dice_paper"] = [0.8, 0, 0, 0, 0, 0]
    for model, columns in rules.items():
        for seed in range(3):
            name = f"acdc_{model}_{seed}"
            write_run(invented / "empty_masks", name, cases.assign(dice=0.5))
            (invented / "empty_masks/scored").mkdir(exist_ok=True)
            kinds = [cases.assign(kind=kind, **columns) for kind in ("slice", "volume")]
            pd.concat(kinds).to_csv(invented / f"empty_masks/scored/{name}.csv", index=False)
    found = report.empty_masks().set_index(["kind", "model"])
    assert len(found) == 4 and np.allclose(found["absent"], 2 / 3)
    t, unet = found.loc[("slice", "t")], found.loc[("slice", "unet")]
    assert (t["strict"], t["published"], t["difference"]) == pytest.approx((0.4, 0.6, 0.2))
    assert (t["low"], t["high"]) == pytest.approx((0.2, 0.2)), "both patients are alike"
    assert (t["false_alarm"], t["missed"], unet["false_alarm"], unet["missed"]) == (0.5, 0, 0, 0.5)
    assert (unet["strict"], unet["published"]) == pytest.approx((0.4, 0.8 / 6)) and unet["low"] < unet["high"]
    compared = report.empty_masks_comparisons().set_index("by")["difference"]
    assert compared["slice, published"] == pytest.approx(0.6 - 0.8 / 6)
    assert compared["slice, strict"] == pytest.approx(0.4), "over the two cases that both define"


def long_range_file(where, runs, steps=20):
    where.parent.mkdir(exist_ok=True)
    keys = ("model", "distance", "seed", "side_accuracy", "losses")
    runs = [dict(zip(keys, run, strict=True)) for run in runs]
    where.write_text(json.dumps(dict(recipe=dict(steps=steps), runs=runs)))


def test_long_range_counts_seeds_that_learnt_the_cue(invented):
    one = [("a", 8, 0, 0.5, [0.4, 0.3]), ("a", 8, 1, 1.0, [0.4, 0.1]), ("b", 8, 0, 1.0, [0.1, 0.05])]
    long_range_file(invented / "long_range/distances.json", one)
    long_range_file(invented / "long_range/a_part.json", [("c", 8, 0, 0.9, [0.3, 0.2])])
    assert report.long_range_runs()["model"].to_list() == ["a", "a", "b", "c"], "distances.json is first"
    found = report.long_range().set_index("model")
    assert found.loc["a", ["mean", "min", "max", "seeds", "learnt", "step"]].to_list() == [0.75, 0.5, 1.0, 2, 1, 20]
    assert found.loc["b", "step"] == 10 and np.isnan(found.loc["c", "step"]) and found.loc["c", "learnt"] == 1
    assert len(report.long_range_figure().axes) == 2
    long_range_file(invented / "long_range/a_part.json", one[:1])
    with pytest.raises(ValueError, match="expected each run once, got twice"):
        report.long_range()
    long_range_file(invented / "long_range/a_part.json", [("c", 8, 0, 0.9, [0.3, 0.2])], steps=30)
    with pytest.raises(ValueError, match="expected runs of one recipe"):
        report.long_range()


def test_long_range_comparisons_are_of_all_distances_together(invented):
    learnt = {"RWKV-UNet-T": (1, 0, 0, 0, 0), "always": (1, 1, 1, 1, 1), "other": (0, 1, 0, 0, 0)}
    runs = [(m, 8 + i, 0, 0.5 + 0.4 * x, [0.4, 0.3]) for m, row in learnt.items() for i, x in enumerate(row)]
    long_range_file(invented / "long_range/distances.json", runs)
    found = report.long_range_comparisons().set_index("model")
    assert found["learnt"].to_list() == [1, 5, 1] and set(found["runs"]) == {5}
    # By hand: 6 of the ten runs learnt; of the 252 ways to draw five, 6 have five of these, and 6 have one.
    assert np.isnan(found.loc["RWKV-UNet-T", "p"]) and found.loc["always", "p"] == pytest.approx(12 / 252)
    assert found.loc["always", "p_holm"] == pytest.approx(2 * found.loc["always", "p"]) and found.loc["other", "p"] == 1


def test_an_unknown_set_is_named(invented):
    (invented / "reproduction/mars_t_0.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expected names that begin with one of .* got 'mars_t_0\.json'"):
        report.runs("reproduction")


def write_starts(root, sets, arms, failed=()):
    """T is worth 0.1 more with the teacher; a U-Net's run of 30 images differs by image alone."""
    gain = {"t_random": 0, "t_formula": 0, "t_teacher": 0.1, "unet_random": 0.05, "unet_formula": 0.05, "lite0": 0.1}
    for data in sets:
        base = np.random.default_rng(len(data)).uniform(0.4, 0.7, 30)
        for arm in arms:
            for seed in range(2):
                if (data, arm, seed) in failed:
                    continue
                cases = pd.DataFrame({"name": [str(i) for i in range(30)], "class": 1, "dice": base + gain[arm]})
                cases["dice"] += np.random.default_rng([len(arm), seed]).normal(0, 0.01, 30)
                write_run(root / "starts/ten_minutes", f"{data}_{arm}_{seed}", cases, steps=430)


def test_starts_are_compared_where_both_arms_have_the_same_seeds(invented):
    (invented / "starts").mkdir()
    write_starts(invented, ["glas", "busi"], ["t_random", "t_teacher", "lite0"], failed=[("busi", "lite0", 1)])
    means = report.starts().set_index(["set", "model"])
    assert len(means) == 6 and (means["steps"] == 430).all() and means.loc["busi", "lite0"]["runs"] == 1
    found = report.starts_comparisons().set_index(["which", "set"])
    assert list(found.index) == [("D1", "glas"), ("D1", "busi"), ("D4", "glas")]
    assert found.loc["D1", "difference"].between(0.09, 0.11).all() and found.loc["D4", "difference"].abs().max() < 0.01
    assert found["p"].notna().all() and found["p_holm"].isna().all() and not found["found"].any()
    assert len(report.starts_figure().axes[0].get_yticklabels()) == 2


def test_all_starts_together_are_one_family_of_tests(invented):
    (invented / "starts").mkdir()
    write_starts(invented, report.STARTS_SETS, report.ARMS)
    found = report.starts_comparisons()
    assert len(found) == 36 and (found["p_holm"] >= found["p"]).all()
    assert (found["p_holm"].min() == 36 * found["p"].min()) and set(found.loc[found["found"], "which"]) == {
        "D1",
        "D3",
        "D6",
    }


def test_all_is_written(invented, tmp_path):
    written = report.write_report(tmp_path / "report")
    assert {p.name for p in written} == {p.name for p in (tmp_path / "report").iterdir()}
    assert len(written) == len(report.TABLES) + len(report.FIGURES) and all(p.stat().st_size > 60 for p in written)
    again = {p.name: p.read_bytes() for p in report.write_report(tmp_path / "again")}
    assert again == {p.name: p.read_bytes() for p in written}, "the same files give the same report"


def test_the_list_of_claims_quotes_the_report():
    """REPRODUCIBILITY.md is read on its own, so its numbers are typed: they are those of results/."""
    text = (results.PACKAGE.parent / "REPRODUCIBILITY.md").read_text(encoding="utf8")
    found = [report.comparisons().set_index("set").loc["kvasir"], report.longer_comparison().iloc[0]]
    found += [row for _, row in report.transfer_comparisons().iterrows()]
    changed = report.ablations().set_index("variant")
    found += [changed.loc[name] for name in ("no_ccm", "no_attention", "decoder_3")]
    found += [row for _, row in report.empty_masks().query("kind == 'slice'").iterrows()]
    for row in found:
        quoted = "{difference:+.2f} ({low:+.2f} to {high:+.2f})".format(**row).replace("-", "\u2212")
        assert quoted in text, quoted
