"""The numbers that the prose takes from results/: a page writes {{ name }}, and nobody types a measured number.

`book/rendering.py` hands the dictionary of `numbers` to Sphinx as MyST substitutions, `book/plain.py` puts it into the
plain edition.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean

from .inputs import ROOT

WORDS_A_MINUTE = 180
LINES_A_MINUTE = 12  # of code, which is read slowly


def result(root: Path, name: str) -> dict:
    """Returns results/<name>.json, or an empty dictionary before it is measured."""
    path = root / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}


def minutes_to_read(path: Path) -> int:
    """Estimate the minutes that a chapter takes to read, to five, from its words and lines of code."""
    words = lines = 0
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        source = "".join(cell["source"])
        if "setup" in cell["metadata"].get("tags", []):
            continue
        if cell["cell_type"] == "code":
            lines += len([line for line in source.splitlines() if line.strip()])
        else:
            words += len(re.findall(r"\w+", source))
    return max(5, 5 * round((words / WORDS_A_MINUTE + lines / LINES_A_MINUTE) / 5))


def chapters(root: Path) -> dict[str, dict]:
    """Returns for each chapter, by its number: file, title, minutes to read, seconds to run on a CPU and on a GPU."""
    measured = result(root, "book/quality").get("seconds_per_chapter", {})
    on_gpu = result(root, "book/quality_gpu").get("seconds_per_chapter", {})
    found = {}
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf8"))["cells"][0]["source"])
        found[path.stem[:2]] = {
            "file": path.stem,
            "title": first.splitlines()[0].removeprefix("# "),
            "minutes": minutes_to_read(path),
            "cpu": measured.get(path.stem),
            "gpu": on_gpu.get(path.stem),
        }
    return found


def seconds(value: float | None) -> str:
    """Writes a measured time, or a dash where there is none."""
    return "–" if value is None else f"{value:.0f}"


def times(root: Path) -> dict[str, str]:
    """Returns `time_NN` for each chapter, and `chapter_times`, a table of all."""
    found = chapters(root)
    texts = {}
    timed_on_gpu = any(chapter["gpu"] is not None for chapter in found.values())
    for number, chapter in found.items():
        cpu = "not timed" if chapter["cpu"] is None else f"{chapter['cpu']:.0f} seconds"
        gpu = "" if chapter["gpu"] is None else f", {chapter['gpu']:.0f} seconds on a GPU"
        texts[f"time_{number}"] = (
            f"About {chapter['minutes']} minutes to read. To run: {cpu} on two CPU cores{gpu}. Nothing is downloaded."
        )
    head = ["| Chapter | minutes to read | seconds to run, two CPU cores |", "| --- | --: | --: |"]
    rows = [
        f"| {{doc}}`../notebooks/{c['file']}` | {c['minutes']} | {seconds(c['cpu'])} |"
        + (f" {seconds(c['gpu'])} |" if timed_on_gpu else "")
        for c in found.values()
    ]
    if timed_on_gpu:
        head = [head[0] + " seconds to run, GPU |", head[1] + " --: |"]
    else:
        rows.append("\nThe chapters have not been timed on a GPU.")
    return texts | {"chapter_times": "\n".join(head + rows)}


def synthetic_model(root: Path) -> dict[str, str]:
    """Returns what is known of the weights that the library brings along."""
    run = result(root, "training/synthetic_t_128")
    scores, light = run["mean"], result(root, "training/rwkv_unet_p_synthetic")
    return {
        "synthetic_p_dice": f"{light['mean']['dice']:.2f}",
        "synthetic_p_numbers": f"{light['numbers']:,}",
        "synthetic_p_test_images": str(len(light["images"])),
        "synthetic_t_dice": f"{scores['dice']:.3f}",
        "synthetic_t_iou": f"{scores['iou']:.3f}",
        "synthetic_t_hd95": f"{scores['hd95']:.1f}",
        "synthetic_t_hd95_undefined": str(run["hd95_undefined"]),
        "synthetic_t_test_images": str(len(run["images"])),
        "synthetic_t_poor_images": str(sum(image["dice"] < 0.5 for image in run["images"])),
        "synthetic_t_epochs": str(len(run["log"])),
        "synthetic_t_minutes": f"{sum(epoch['seconds'] for epoch in run['log']) / 60:.0f}",
        "synthetic_t_validation_dice": f"{run['checkpoint']['dice']:.3f}",
    }


def teacher(root: Path) -> dict[str, str]:
    """Returns what the shipped start took, and how much of its teacher it explains."""
    last = result(root, "starts/rwkv_encoder_t_teacher")["log"][-1]
    first, second, third = (f"{last[f'explained_{stride}']:.2f}" for stride in (8, 16, 32))
    return {
        "teacher_steps": f"{last['step']:,}",
        "teacher_hours": f"{last['seconds'] / 3600:.1f}",
        "teacher_explained": f"{first}, {second} and {third}",
    }


def audits(root: Path) -> dict[str, str]:
    """Returns what the leakage audits of the real sets found."""
    texts = {}
    for name in ("acdc", "busi", "cvc_clinicdb", "kvasir_seg", "isic2017", "glas"):
        audit = result(root, f"audit/{name}")
        texts[f"audit_{name}_items"] = f"{audit['items']:,}"
        texts[f"audit_{name}_exact"] = str(len(audit["exact_duplicates"]))
        texts[f"audit_{name}_near"] = str(len(audit["near_duplicates"]))
    busi = result(root, "audit/busi")
    torn = [busi["crossing"][f"split{number}"] for number in (1, 2, 3)]
    closer = [pair["differ_in"] for pair in busi["near_duplicates"] if pair["correlation"] > 0.999]
    memoriser = result(root, "audit/memoriser")["dice"]["cvc_clinicdb"]
    return (
        texts
        | {f"audit_busi_torn_{number}": str(pairs) for number, pairs in enumerate(torn, 1)}
        | {
            f"audit_busi_torn_999_{number}": str(sum(f"split{number}" in sides for sides in closer))
            for number in (1, 2, 3)
        }
        | {
            "audit_busi_torn_least": str(min(torn)),
            "audit_busi_torn_most": str(max(torn)),
            "audit_busi_label": str(busi["crossing"]["label"]),
            "audit_busi_other_label": str(busi["crossing"]["label"] - len(busi["exact_duplicates"])),
            "audit_cvc_clinicdb_torn_by_image": str(
                result(root, "audit/cvc_clinicdb_prepared")["crossing"]["split_image"]
            ),
            "audit_kvasir_seg_crossing": str(result(root, "audit/kvasir_seg")["crossing"]["split"]),
            "audit_isic2017_crossing": str(result(root, "audit/isic2017")["crossing"]["split"]),
            "memoriser_cvc_image_dice": f"{mean(memoriser['image']):.2f}",
            "memoriser_cvc_sequence_dice": f"{mean(memoriser['sequence']):.2f}",
        }
    )


def experiments(root: Path) -> dict[str, str]:
    """Returns what the long-range experiment gave."""
    models = result(root, "synthetic/long_range")["models"]
    return {
        "long_range_unet3_radius": str(models["U-Net, 3 levels"]["receptive_field_radius"]),
        "long_range_unet4_radius": str(models["U-Net, 4 levels"]["receptive_field_radius"]),
    }


def intervals(root: Path) -> dict[str, str]:
    """Returns how often 95 % intervals over three runs hold the true mean, in per cent: `experiments/coverage.py`."""
    rows = result(root, "statistics/coverage").get("rows", [])

    def shares(method: str, *distributions: str, dominates: str | None = None) -> list[float]:
        return [
            100 * row[method]
            for row in rows
            if row["distribution"] in distributions and dominates in (None, row["dominates"])
        ] or [float("nan")]

    usual, stored = ("normal", "skewed"), shares("mean_interval", "stored")
    return {
        "coverage_least": f"{min(shares('mean_interval', *usual)):.0f}",
        "coverage_satterthwaite_least": f"{min(shares('satterthwaite', *usual)):.0f}",
        "coverage_bootstrap_runs": f"{min(shares('bootstrap', *usual, dominates='runs')):.0f}",
        "coverage_stored_least": f"{min(stored):.0f}",
        "coverage_stored_most": f"{max(stored):.0f}",
        "coverage_missed_least": f"{min(shares('mean_interval', 'skewed, one in sixteen missed')):.0f}",
    }


def latency(root: Path) -> dict[str, str]:
    """Returns how many times the U-Net's seconds and MiB one image takes, by network and size."""
    rows = {(row["model"], row["size"]): row for row in result(root, "bench/efficiency_cpu")["rows"]}
    texts = {}
    for model in "tsb":
        for size in (256, 512):
            ours, unet = rows[f"rwkv_unet_{model}", size], rows["unet", size]
            texts[f"times_unet_{model}_{size}"] = f"{ours['seconds'] / unet['seconds']:.1f}"
            texts[f"memory_unet_{model}_{size}"] = f"{ours['peak_mib'] / unet['peak_mib']:.0f}"
    for model in ("rwkv_unet_t", "rwkv_unet_b", "unet"):
        ratio = rows[model, 512]["seconds"] / rows[model, 256]["seconds"]
        texts[f"times_512_{model.removeprefix('rwkv_unet_')}"] = f"{ratio:.1f}"
    return texts


def numbers(root: Path = ROOT) -> dict[str, str]:
    """Returns the text of every name that the pages may use."""
    measured = (times, synthetic_model, teacher, audits, experiments, intervals, latency)
    return {name: text for part in measured for name, text in part(root).items()}
