"""Write the measured figures into the README, from `results/`: `python benchmarks/readme_table.py`."""

import json
from pathlib import Path

import runs

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
TITLES = {
    "default_run": "**Drawn dogs**, 24 breeds, 1,296 train, 144 validation and 600 test pictures, the default command "
    "and the same with the embedded ViT",
    "real_sample": "**Real dogs**, 120 breeds, 3,240 train, 360 validation and 1,200 test pictures, cropped to the "
    "dog; the ResNet-50 of keras.applications (ImageNet-1k: it knows these breeds and has most likely seen "
    "these pictures)",
}
IN_WORDS = {
    "untouched head": "its own ImageNet head, untrained",
    "from the ImageNet head": "linear probe that begins with the ImageNet head",
}


def render() -> str:
    """Returns the tables as Markdown, one a result file; every number is in it."""
    parts = []
    for name, title in TITLES.items():
        for file in sorted(RESULTS.glob(f"{name}-*.json")):
            parts.append(
                f"{title}; {_describe(json.loads(file.read_text()))}:\n\n{_table(json.loads(file.read_text()))}"
            )
    return "\n\n".join(parts)


def _describe(result: dict) -> str:
    machine, versions = result["machine"], result["versions"]
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("keras", "jax", "tensorflow", "torch") if name in versions
    )
    return f"{machine['cores']} cores of an {machine['processor']}, Python {versions['python']}, {packages}"


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
    """Returns the README's text with the tables between their marks."""
    return runs.put_between(text, "measured", render())


if __name__ == "__main__":
    README.write_text(insert(README.read_text()))
