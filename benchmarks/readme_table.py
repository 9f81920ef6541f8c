"""Write what to expect into the README, from `results/`: `python benchmarks/readme_table.py`.

`single_runs` makes the tables of single runs for `docs/results.md`.
"""

import json
from pathlib import Path

import runs

README = Path(__file__).parents[1] / "README.md"
TITLES = {
    "default_run": "**Drawn dogs**, 24 breeds, 1,296 training, 144 validation and 600 test pictures, the default "
    "command and the same with the embedded ViT",
    "real_sample": "**Real dogs**, 120 breeds, 3,240 training, 360 validation and 1,200 test pictures, cropped to the "
    "dog; the ResNet-50 of keras.applications (ImageNet-1k: it knows these breeds and has most likely seen "
    "these pictures)",
}
IN_WORDS = {
    "untouched head": "its own ImageNet head, untrained",
    "from the ImageNet head": "linear probe that begins with the ImageNet head",
}
_SAMPLE, _STANFORD_DOGS = 3240, 10_800  # pictures of an epoch


def render() -> str:
    """Returns the README's table of what to expect as Markdown; every measured number is from a result file."""
    rows = [
        ("two cores", "`train`", *_default_run(), "whole runs"),
        ("two cores", "`compare --pair embedded --seeds 0 1 2`", *_comparison(), "whole runs"),
        (
            "two cores",
            "`train --preset applications:resnet50:FILE --linear-probe`, 3,240 photographs",
            *_probe(),
            "whole runs; these weights had seen the breeds",
        ),
        (
            "two cores",
            "`train --preset applications:resnet50:FILE`, the same photographs",
            *_epoch("throughput", "resnet_50", _SAMPLE, 60, "minutes"),
            "computed",
        ),
        (
            "one H200",
            "`train --preset vit_base_patch16_224_imagenet21k --dataset stanford_dogs --dtype-policy mixed_bfloat16 "
            "--batch-size 128`",
            *_epoch("on_gpu", "vit_base_patch16_224", _STANFORD_DOGS, 1, "seconds"),
            "computed",
        ),
    ]
    lines = ["| You have | Command | Time | Top-1 accuracy | Measured |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _rows(name: str) -> list[dict]:
    found = [
        row for file in sorted(runs.RESULTS.glob(f"{name}-*.json")) for row in json.loads(file.read_text())["rows"]
    ]
    return [row for row in found if "error" not in row]


def _range(numbers, form: str = "{:.0f}") -> str:
    least, most = form.format(min(numbers)), form.format(max(numbers))
    return least if least == most else f"{least} to {most}"


def _default_run() -> tuple[str, str]:
    rows = [row for row in _rows("default_run") if row["preset"] == "resnet_nano"]
    accuracy = _range([100 * row["test_top1_accuracy"] for row in rows], "{:.1f}")
    return f"{_range([row['total_s'] for row in rows])} seconds", f"{accuracy} % of 24 drawn breeds"


def _comparison() -> tuple[str, str]:
    rows = _rows("comparison_embedded")
    seconds = sum(row["total_s"]["mean"] * len(row["seeds"]) for row in rows)
    accuracy = {
        name: [100 * row["top1"]["mean"] for row in rows if row["model"] == name]
        for name in ("resnet_nano", "vit_nano")
    }
    return (
        f"{seconds / 60:.0f} minutes",
        f"ResNet {_range(accuracy['resnet_nano'])} %, ViT {_range(accuracy['vit_nano'])} %, after 5 epochs",
    )


def _probe() -> tuple[str, str]:
    rows = [row for row in _rows("real_sample") if row["task"] == "linear probe"]
    accuracy = _range([100 * row["test_top1_accuracy"] for row in rows], "{:.1f}")
    return f"{_range([row['total_s'] / 60 for row in rows])} minutes", f"{accuracy} % of 120 breeds"


def _epoch(name: str, model: str, pictures: int, unit: float, word: str) -> tuple[str, str]:
    rows = [row for row in _rows(name) if (row["model"], row["mode"], row["engine"]) == (model, "train", "keras_dogs")]
    rates = [row["images_per_second"]["median"] for row in rows]
    return f"{_range([pictures / rate / unit for rate in rates])} {word} an epoch", "–"


def single_runs() -> str:
    """Returns the tables of single runs as Markdown, one per result file; every number is in it."""
    parts = []
    for name, title in TITLES.items():
        for file in sorted(runs.RESULTS.glob(f"{name}-*.json")):
            result = json.loads(file.read_text())
            parts.append(f"{title}; {_describe(result)}:\n\n{_table(result)}")
    return "\n\n".join(parts)


def _describe(result: dict) -> str:
    machine, versions = result["machine"], result["versions"]  # none of what was only scored
    packages = [
        f"{name if name != 'python' else 'Python'} {versions[name]}"
        for name in ("python", "keras", "jax", "tensorflow", "torch")
        if name in versions
    ]
    return ", ".join([f"{machine['cores']} cores of an {machine['processor']}", *packages])


def _table(result: dict) -> str:
    lines = ["| weights | what | backend | test top-1 | test top-5 | whole run |", "|---|---|---|---|---|---|"]
    for row in result["rows"]:
        preset = row.get("preset", "?").split(":")[-1].removesuffix(".weights.h5")
        task = row.get("task", "fine-tuning")
        cells = [f"`{preset}`", IN_WORDS.get(task, task), runs.PROSE[row["backend"]]]
        if "error" in row:
            cells += [row["error"], "", ""]
        else:
            cells += [f"{row['test_top1_accuracy']:.1%}", f"{row['test_top5_accuracy']:.1%}", f"{row['total_s']:.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def insert(text: str) -> str:
    """Returns the README's text with the table between its marks."""
    return runs.put_between(text, "measured", render())


if __name__ == "__main__":
    README.write_text(insert(README.read_text()))
