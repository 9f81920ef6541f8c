"""The section of docs/results.md that says what to serve a classifier with; `results_docs.py` calls it."""

from pathlib import Path

from keras_dogs.comparison import figures
from keras_dogs.system import pages

TITLE = "What do I serve it with?"
_TEXT = (
    "The same classifier with random weights, from uint8 canvases to logits and probabilities in every runtime that "
    "`python -m keras_dogs.export` writes for, to logits in Keras. Each has a process of its own and takes its turn; "
    "images/s are the median, the least and the most of {turns} turns, one picture at a time and in batches of 32. "
    "*Ready*: from the start of Python to the first answer, imports and compilation included. *Memory*: the most that "
    "its process held. int8 is as fast as the processor's instructions for it: this one has {vectors}{vnni}. What int8 "
    "costs in accuracy is in [export](export.md)."
)
_NAMES = {"onnx": "ONNX Runtime", "torch": "PyTorch, .pt2", "tf_saved_model": "TensorFlow, SavedModel"}
_NAMES |= {"litert": "LiteRT", "openvino": "OpenVINO"}


def section(result: dict, machine: str) -> str:
    """Returns the section as Markdown, a table a model."""
    rows = result["rows"]
    turns = max(row.get("turns", 0) for row in rows)
    machine_of = result["machine"]
    vnni = {True: " with VNNI", False: " and no VNNI"}.get(machine_of.get("vnni"), "")
    text = _TEXT.format(turns=turns, vectors=machine_of["vectors"].upper(), vnni=vnni)
    parts = [f"\n## {TITLE}\n\n{machine}\n\n{text}\n\n![Images a second in each runtime](results/runtimes.svg)\n"]
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        parts.append(f"### {model}\n\n{_in_short(of_model)}\n\n{_table(of_model, result['commit'])}")
    return "\n".join(parts)


def draw(result: dict, file: Path) -> None:
    """Draws images a second of every runtime, a panel a model."""
    import matplotlib

    rows = [row for row in result["rows"] if "error" not in row]
    models = list(dict.fromkeys(row["model"] for row in rows))
    with matplotlib.rc_context(figures.style(*figures.THEMES[""])):
        from matplotlib import pyplot

        most = max(sum(row["model"] == model for row in rows) for model in models)
        figure, axes = pyplot.subplots(1, len(models), figsize=(4.8 * len(models), 1.0 + 0.36 * most), squeeze=False)
        for axis, model in zip(axes[0], models, strict=True):
            _panel(axis, model, _ordered([row for row in rows if row["model"] == model]))
        figure.tight_layout()
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)


def _panel(axis, model: str, rows: list[dict]) -> None:
    for batch, shift, colour in ((32, -0.2, figures.COLOURS[1]), (1, 0.2, figures.COLOURS[0])):
        places = [place + shift for place in range(len(rows))]
        speeds = [row[f"images_per_second_{batch}"]["median"] for row in rows]
        axis.barh(places, speeds, 0.36, color=colour, label="in 32s" if batch == 32 else "one by one")
    axis.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=9)
    axis.invert_yaxis()
    axis.set_title(model, fontsize=11)
    axis.set_xlabel("images a second")
    axis.grid(visible=False, axis="y")
    axis.legend(loc="lower right")


def _ordered(rows: list[dict]) -> list[dict]:
    """Returns the rows that were measured, the fastest first."""
    measured = [row for row in rows if "error" not in row]
    return sorted(measured, key=lambda row: -row["images_per_second_32"]["median"])


def _name(row: dict) -> str:
    name = _NAMES.get(row["runtime"], row["runtime"])
    return f"{name}, {row['quantization']}" if row["quantization"] else name


def _in_short(rows: list[dict]) -> str:
    """Says which is the fastest, the quickest to start and the lightest, in float32."""
    exact = [row for row in rows if "error" not in row and not row["quantization"]]
    ready, light = (min(exact, key=lambda row: row[key]) for key in ("start_s", "peak_memory_mib"))
    return (
        f"In float32, fastest at batch size 1: {_fastest(exact, 1)}; at batch size 32: {_fastest(exact, 32)}; ready "
        f"first: **{_name(ready)}**; least memory: **{_name(light)}**."
    )


def _fastest(rows: list[dict], batch: int) -> str:
    """Names the fastest, and those that were as fast in one of their turns."""
    rows = sorted(rows, key=lambda row: -row[f"images_per_second_{batch}"]["median"])
    best = rows[0][f"images_per_second_{batch}"]["median"]
    near = [_name(row) for row in rows[1:] if row[f"images_per_second_{batch}"]["max"] >= best]
    return f"**{_name(rows[0])}**" + (f" (within the spread: {', '.join(near)})" if near else "")


def _table(rows: list[dict], commit: str) -> str:
    lines = []
    for row in _ordered(rows):
        one, many = (row[f"images_per_second_{batch}"] for batch in (1, 32))
        speeds = [f"{each['median']:.1f} ({each['min']:.1f} to {each['max']:.1f})" for each in (one, many)]
        cells = [f"{row['start_s']:.1f}", f"{row['peak_memory_mib']:,.0f}", f"{row['size_bytes'] / 2**20:.1f}"]
        name = _NAMES.get(row["runtime"], row["runtime"])
        lines.append([name, row["quantization"] or "float32", *speeds, *cells, row.get("commit", commit)])
    lines += [[_name(row), row["error"], *[""] * 6] for row in rows if "error" in row]
    header = ["runtime", "precision", "images/s one by one", "images/s in 32s", "ready, s", "memory, MiB", "file, MiB"]
    return pages.table([*header, "commit"], lines)
