"""Write the tables of docs/scaling.md, on paper and measured: `python benchmarks/scaling_docs.py`."""

import json
from pathlib import Path

import runs
import scaling

from keras_dogs.models.costs import count_gflops
from keras_dogs.models.costs import count_parameters
from keras_dogs.models.presets import PRESETS

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
MODELS = {
    "ResNet-50": "resnet_50",
    "ViT-B/16": "vit_base_patch16_224",
    "ViT-L/16": "vit_large_patch16_224",
    "ViT-H/14": "vit_huge_patch14_224",
}
# Assumptions. 790 TFLOP/s is a large bf16 matrix product on an H200; the share of it that training reaches is a guess.
TFLOPS, SHARE = 790, {"resnet": 0.15, "vit": 0.4}
BATCH = 64  # pictures a device
BYTES = 4  # of a gradient: variables are float32 under every policy
# Of each task of `scaling.py`, what its seconds are.
WHAT = {scaling.ALL_WEIGHTS: "s a step", scaling.PROBE: "s for all features"}
# Bytes a second each way of a device, and how many devices there are.
LINKS = {
    "NVLink 4, 8 devices": (450e9, 8),
    "InfiniBand NDR a device, 64 devices": (50e9, 64),
    "Ethernet 100 Gb/s a device, 64 devices": (12.5e9, 64),
    "Ethernet 25 Gb/s a host of 8, 64 devices": (25e9 / 8 / 8, 64),
}


def bytes_sent(parameters: int, devices: int) -> float:
    """Returns what each device sends in a step: a ring sends every gradient twice, less one part in `devices`."""
    return 2 * (devices - 1) / devices * parameters * BYTES


def step_seconds(preset: str) -> float:
    """Returns a step's seconds on one device alone: forward and twice that for the gradient."""
    row = PRESETS[preset]
    return 3 * count_gflops(row) * 1e9 * BATCH / (TFLOPS * 1e12 * SHARE[row.family])


def efficiency(step: float, sending: float) -> float:
    """Returns a device's share of its speed alone: gradients are sent while others are computed, in 2/3 of the step."""
    return step / max(step, step / 3 + sending)


def on_paper() -> str:
    """Returns the model as a table."""
    links = list(LINKS)
    lines = [
        f"| model | parameters | sent a step | 16 bytes a parameter | step alone | {' | '.join(links)} |",
        "|---" * (5 + len(links)) + "|",
    ]
    for name, preset in MODELS.items():
        parameters, step = count_parameters(PRESETS[preset]), step_seconds(preset)
        cells = [name, f"{parameters / 1e6:.0f} M", f"{bytes_sent(parameters, 64) / 1e6:,.0f} MB"]
        cells += [f"{16 * parameters / 1e9:.1f} GB", f"{1000 * step:.0f} ms"]
        for bandwidth, devices in LINKS.values():
            sending = bytes_sent(parameters, devices) / bandwidth
            cells.append(f"{1000 * sending:,.0f} ms, {efficiency(step, sending):.0%} left")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured() -> str:
    """Returns what `scaling.py` found, as tables."""
    parts = []
    for file in sorted(runs.RESULTS.glob("scaling-*.json")):
        result = json.loads(file.read_text())
        machine = result["machine"]
        commits = ", ".join(dict.fromkeys(row.get("commit", result["commit"]) for row in result["rows"]))
        parts.append(
            f"{machine['cores']} cores of an {machine['processor']}, commits {commits}. Other commits than those "
            "of [results](results.md): what is meant here is the ratio of two processes to one, not the time."
        )
        for task, what in WHAT.items():
            lines = [
                f"| {task} | processes | {what} | of one process' speed | top-1 | test loss | memory a process, GiB |",
                "|---" * 7 + "|",
            ]
            lines += [_measured_row(row) for row in result["rows"] if row["task"] == task]
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _measured_row(row: dict) -> str:
    cells = [runs.PROSE[row["backend"]], str(row["num_processes"])]
    if "error" in row:
        cells += [row["error"], "", "", "", ""]
    else:
        ratio = f"{row['ratio_to_one_process']:.2f}" if "ratio_to_one_process" in row else ""
        cells += [f"{row['seconds']:,.2f}" if row["seconds"] < 100 else f"{row['seconds']:,.0f}", ratio]
        cells += [f"{row['test_top1_accuracy']:.1%}", f"{row['test_loss']:.4f}", f"{row['peak_memory_gib']:.1f}"]
    return f"| {' | '.join(cells)} |"


def insert(text: str) -> str:
    """Returns the page with the tables between their marks."""
    for name, table in (("paper", on_paper()), ("measured", measured())):
        text = runs.put_between(text, name, table)
    return text


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text()))
