"""Write docs/results.md, with its figures, from `results/`: `python benchmarks/results_docs.py`."""

import itertools
import json
import re
import shutil
import statistics
import tempfile
from pathlib import Path

import how_equal
import input_at_scale
import readme_table
import runs
import runtimes_docs
import swaps

from keras_dogs.comparison import figures
from keras_dogs.comparison import page
from keras_dogs.system import pages

ROOT = Path(__file__).parents[1]
FIGURES = ("accuracy", "curves", "cost", "time_to_accuracy", "classes")
COMPARISONS = {
    "full_fine_tuning": "Real dogs: all weights trained",
    "embedded": "Drawn dogs: the embedded pair",
    "real_sample": "Real dogs: linear probes on a sample",
}
REMARKS = {
    "full_fine_tuning": "All weights of both models, four epochs, `standard` augmentation, on the sample and "
    "with the weights of "
    "the linear probes below. Of seventeen runs (`benchmarks/full_fine_tuning.py`) these are the first ten; "
    "a second seed of each model on PyTorch is in the table of how equal they are alone. Still to come: both models "
    "from a probe on JAX and TensorFlow, and the ResNet-50 from its own ImageNet head.\n\n"
    "- **The three backends train the ResNet-50 the same.** Over 808 steps their losses are never more "
    "than 0.027 nats apart, and they give the same answer on 99 % of the test pictures: 75.9, 75.8 and 75.7 "
    "%. Another seed on one backend differs by up to 0.93 nats, and answers 88.0 % alike: 74.1 %.\n"
    "- **The ViT-S/14 in batches of 16 trains unstably, and the seed decides.** The three backends agree to "
    "about 0.00001 nats for 60 steps. Then, near the highest learning rate, rounding grows, to 0.37 to 0.50 nats at "
    "most. They end alike in accuracy (29.7, 28.9 and 27.5 %, no pair significantly apart), and give the same answer "
    "on 66 to 69 % of the test pictures. Another seed on PyTorch, with the same flags, hardly learns: 2.7 %, up to "
    "1.87 nats away, 2 % of the answers alike. A rate of 3e-4 is too high for these batches; one seed would not have "
    "shown it.\n"
    "- **A probe first.** From its linear probe the ViT-S/14 reaches 64.2 %, where a probe alone reaches 43.1 "
    "% (below). From a head of zeros it reaches 40.1 % in batches of 64, and 28.9 % or 2.7 % in batches of 16 at the "
    "same rate: four times as many updates do not help, so too few updates are not the cause. That gradients "
    "through a wrong head spoil good features is known (arXiv 2202.10054); the two recipes differ in rate, "
    "layer decay and label smoothing, too.\n"
    "- **The ResNet-50 does not beat its own probe**, nor its untouched ImageNet head (85.1 %, below). From "
    "its probe (81.4 % of the 360 validation photographs) no epoch was better: 79.7 % at most, though the "
    "loss fell from 1.06 to 0.83 nats. It has 79.2 % on test, the linear probe below 80.8 %: both keep the "
    "epoch with the best top-1 on 360 photographs, here an early one whose probabilities are still flat. From "
    "a head of zeros, 200 updates in batches of 64 are too few, and 808 in batches of 16 still stay behind. "
    "Its weights have seen these photographs with their labels, test pictures included: little is left to "
    "learn.\n\n"
    "Times are of two machines. The ViT on TensorFlow and in batches of 64, and the ResNet-50 from a head of zeros on "
    "PyTorch, had next to nothing beside them; the others had: their times are too long, and JAX' first step waited "
    "for its turn.",
    "real_sample": "The sample is 3,600 + 1,200 photographs, cropped to their dogs, of all 120 breeds. The ResNet-50 "
    "was trained on ImageNet-1k, so it knows these breeds and has most likely seen these pictures. The ViT-S/14 is a "
    "DINOv2 backbone that was trained on for saliency and is weak on breeds: this is **not** a verdict on ViTs, it is "
    "the whole path run on real pictures with real weights, on the three backends. `check` finds 9 of the 1,200 test "
    "pictures in train, too ([checking](checking.md)); none was left out. A probe trains for 40 epochs by SGD at 0.01, "
    "without augmentation. The ViT's runs on JAX and "
    "TensorFlow had other work beside them: their times are too long.",
}

_ON_GPU = (
    "224 pixels, mixed bfloat16, ViT-B/16 in batches of 128 and ResNet-50 of 256. `keras_dogs` trains from a "
    "table in the GPU with `standard` augmentation; the others have no augmentation and pictures that are ready. "
    "A ratio is to the fastest of timm, timm with `torch.compile` and Flax of the same session; *share of peak* is the "
    "model's arithmetic, of what a large matrix product reaches in the same process. *First six steps*: with "
    "compilation, without imports and the building of the model; PyTorch's processes compile side by side. JAX cannot "
    "reset its peak-memory counter, so no memory figure is given for its predictions. These sessions ran JAX 0.11, "
    "which the package no longer supports.\n\n"
    "The rows are of two sessions, as the last column says. In the second (c86bb26), other processes held the GPU's "
    "memory: `keras_dogs` on JAX, and the ResNet-50 of Flax and of compiled timm, could not start. Their rows "
    "are of the first (311931b). So our ResNet-50 on PyTorch has no ratio; it trains at {resnet:.2f} of the speed that "
    "compiled timm had in the first session. The ratios of JAX are to the peers of the first session.\n\n"
    "**What was done since and not measured again in a model**, by notes in the code (`class_token.py`, "
    "`backends/layers/`): on JAX, a ViT's last block is computed for the class token alone (7 % of the operations), "
    "and "
    "attention of an odd number of tokens has a kernel in training (a block's takes 0.6 ms, by XLA 1.2 or more); on "
    "both, a ResNet's first convolution is folded into one of more channels (on PyTorch, of 256 pictures, 0.8 ms "
    "forward and 0.5 for the kernel's gradient instead of 1.8 and 1.1)."
)

_OF_SINGLE_RUNS = (
    "The half-precision file of this ResNet-50 holds one infinite variance, which is read as the largest float16 "
    "number. The probe that begins with the ImageNet head was measured before that was so.\n\n"
    "One run each, start-up, training and test included: drawn dogs and most linear probes on an idle machine that had "
    "decoded the pictures and, for JAX, compiled the steps before; the rest, with the slowest probe, on a slower one "
    "that did other work at the same time. The times do not rank the backends."
)


def render() -> str:
    """Returns the page as Markdown."""
    parts = [
        "# Results\n\nWritten by `benchmarks/results_docs.py` from `benchmarks/results/`; a figure that is in no "
        "table is from a note in the code, where it says so. How each was made: [benchmarks](../benchmarks/README.md). "
        "All figures are from CPUs but for those of *Images a second on a GPU*.\n"
    ]
    for name, title in COMPARISONS.items():
        for file in sorted(runs.RESULTS.glob(f"comparison_{name}-*.json")):
            parts.append(_comparison(name, title, json.loads(file.read_text())))
            if name == "full_fine_tuning" and (equal := how_equal.load()):
                parts.append(how_equal.section(equal))
    parts.append(f"\n## Single runs\n\n{readme_table.single_runs()}\n\n{_OF_SINGLE_RUNS}\n")
    for file in sorted(runs.RESULTS.glob("throughput-*.json")):
        parts.append(_throughput(json.loads(file.read_text())))
    if files := sorted(runs.RESULTS.glob("swaps-*.json")):
        parts.append(swaps.section([json.loads(file.read_text()) for file in files]))
    for file in sorted(runs.RESULTS.glob("on_gpu-*.json")):
        parts.append(_on_gpu(json.loads(file.read_text())))
    for file in sorted(runs.RESULTS.glob("input_at_scale-*.json")):
        parts.append(_input_at_scale(json.loads(file.read_text())))
    for file in sorted(runs.RESULTS.glob("runtimes-*.json")):
        result = json.loads(file.read_text())
        parts.append(runtimes_docs.section(result, _machine(result)))
    return "\n".join(parts)


def _comparison(name: str, title: str, result: dict) -> str:
    found = result["comparison"]
    text = page.report(found, list(FIGURES), {})
    text = text.replace("](figures/", f"](results/{name}/")
    # One page, one title; the runs' folders are not here, and their commands are in the result file.
    text = re.sub(r"^# .*$", "", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"\n## Every run\n.*", "", text, flags=re.DOTALL)
    text = re.sub(r"\n## Pictures that only one gets right\n.*?(?=\n## )", "", text, flags=re.DOTALL)
    text = re.sub(r"^##", "###", text, flags=re.MULTILINE)
    # Of the machine that it was made on: where the files are, and the folders of runs that were compared.
    text = re.sub(r"[\w./-]+/(?=(resnet50_imagenet1k_fp16|dinov2_vits14_hf)\b)", "", text)
    text = re.sub(r"--from .* --output \S+", "--from RUN... --output comparison", text)
    remark = f"\n{REMARKS[name]}\n" if name in REMARKS else ""
    return f"\n## {title}\n{remark}\n{_machine(result)}\n{text}"


def _machine(result: dict) -> str:
    machine = result["machine"]
    name = f"{machine['cores']} cores of an {machine['processor']}, {machine['memory_gib']:.0f} GiB"
    return f"*{name}; commit {_commit(result)}*"


def _commit(result: dict) -> str:
    commit, _, changed = result["commit"].partition("-")
    return f"{commit}, with changes that were not committed" if changed else commit


def _throughput(result: dict) -> str:
    rows = []
    for row in result["rows"]:
        ratios = row.get("ratio_to_best_peer")
        cells = [row["model"], row["mode"], row["engine"], runs.PROSE[row["backend"]]]
        if "error" in row:
            rows.append([*cells, row["error"], "", "", "", "", row["commit"]])
            continue
        speed = row["images_per_second"]
        rows.append(
            [
                *cells,
                f"{speed['median']:.1f} ({speed['min']:.1f} to {speed['max']:.1f})",
                _middle_half(ratios) if ratios else "–",
                f"{row['utilisation']:.0%}" if "utilisation" in row else "–",
                f"{row['first_step_s']:.1f}",
                f"{row['peak_memory_gib']:.1f}",
                row["commit"],
            ]
        )
    header = [
        "model",
        "mode",
        "engine",
        "backend",
        "images/s",
        "ratio to the best peer",
        "share of peak",
        "slowest of the first four steps, s",
        "memory, GiB",
        "commit",
    ]
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    rows.sort(key=lambda cells: (models.index(cells[0]), cells[1] == "predict"))
    return (
        f"\n## Images a second\n\n{_machine(result)}\n\nBatch 16 at 224 pixels, float32. `keras_dogs` has `standard` "
        "augmentation in its training step, and resizes what it predicts; the others have pictures that are ready. "
        "Engines take turns, step by step; images/s are the median, the least and the most of the turns. Ratios are "
        "computed turn by turn; the table gives their median and quartiles. The reference is Flax on JAX, bare "
        "KerasHub on TensorFlow, and the faster of timm and transformers on PyTorch; timm and transformers are "
        "compared with each other. *Share of peak*: the operations of "
        "the model, in training three times its forward pass, of what a product of square matrices reached in the same "
        f"sitting{_peak(result)}. Sittings are told apart by their commit.\n\n"
        "PyTorch multiplies float32 matrices with MKL, which does not use AVX-512 on AMD processors. On these, "
        "`keras_dogs` uses oneDNN instead. On other processors, that part of a ViT's lead on PyTorch is missing; how "
        "much remains was not measured with this version.\n\n"
        "### Of the peer's speed\n\nThe median ratio on each backend; in the last column, our fastest backend beside "
        "the fastest of Flax, timm and transformers.\n\n" + _in_short(result["rows"]) + "\n"
        "### Each of them\n\n" + pages.table(header, rows)
    )


def _peak(result: dict) -> str:
    peaks = [row["product_gflops"] for row in result["rows"] if "product_gflops" in row]
    if not peaks:
        return ""
    least, most = min(peaks), max(peaks)
    return f", {most:.0f} GFLOP/s" if most - least < 1 else f", {least:.0f} to {most:.0f} GFLOP/s"


def _middle_half(ratios: list[float]) -> str:
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    if len(ratios) < 4:  # of rounds, as they were once
        return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _on_gpu(result: dict) -> str:
    lines = []
    for row in result["rows"]:
        cells = [row["model"], row["mode"], row["engine"], runs.PROSE[row["backend"]]]
        if "error" in row:
            lines.append([*cells, row["error"], "", "", "", "", "", row["commit"]])
            continue
        speed, ratio = row["images_per_second"], row.get("ratio_to_best_peer")
        lines.append(
            [
                *cells,
                row["compiled"],
                f"{speed['median']:,.0f} ({speed['min']:,.0f} to {speed['max']:,.0f})",
                f"{ratio:.2f}" if ratio else "–",
                f"{row['utilisation']:.0%}",
                # JAX does not forget the peak of the training before it.
                "–" if (row["backend"], row["mode"]) == ("jax", "predict") else f"{row['peak_memory_gib']:.1f}",
                f"{row['ready_s']:.0f}",
                row["commit"],
            ]
        )
    lines.sort(key=lambda line: (line[0], line[1] == "predict"))
    header = ["model", "mode", "engine", "backend", "how it runs", "images/s", "ratio to the best peer"]
    header += ["share of peak", "memory, GiB", "first six steps, s", "commit"]
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    device = next(row["device"] for row in result["rows"] if "device" in row)
    where = f"*{device}; {versions}; without TensorFlow*"
    text = _ON_GPU.format(resnet=_of_compiled_timm(result["rows"]))
    return f"\n## Images a second on a GPU\n\n{where}\n\n{text}\n\n" + pages.table(header, lines)


def _of_compiled_timm(rows: list[dict]) -> float:
    """Returns our ResNet-50's speed in training on PyTorch by compiled timm's, which may be of another sitting."""
    speeds = {
        row["engine"]: row["images_per_second"]["median"]
        for row in rows
        if (row["model"], row["mode"], row["backend"]) == ("resnet_50", "train", "torch") and "error" not in row
    }
    return speeds["keras_dogs"] / speeds["timm_compiled"]


def _in_short(rows: list[dict]) -> str:
    """Ratios to the peers, a line a model and mode."""
    measured = [row for row in rows if "error" not in row]
    lines = []
    models = dict.fromkeys(row["model"] for row in measured)
    for model, mode in itertools.product(models, ("train", "predict")):
        of_model = [row for row in measured if (row["model"], row["mode"]) == (model, mode)]
        own = {row["backend"]: row for row in of_model if row["engine"] == "keras_dogs"}
        ratios = [own[name].get("ratio_to_best_peer") if name in own else None for name in runs.PROSE]
        cells = [f"{statistics.median(ratio):.2f}" if ratio else "–" for ratio in ratios]
        lines.append([model, mode, *cells, _best_of_best(list(own.values()), of_model)])
    return pages.table(["model", "mode", *runs.PROSE.values(), "best of ours, best of theirs"], lines)


def _best_of_best(own: list[dict], rows: list[dict]) -> str:
    """Returns the fastest of all backends, held against the fastest library that has no Keras in it."""
    speeds = [
        max((row["images_per_second"]["median"] for row in some), default=0)
        for some in (own, [row for row in rows if not row["engine"].startswith("keras")])
    ]
    return f"{speeds[0] / speeds[1]:.2f}" if all(speeds) else "–"


_OF_INPUT = (
    "A folder of symbolic links to the sample's photographs, under new names; a process for each size. The links lead "
    "to the same 4,800 files, which the system keeps in memory: a disk that has to read 100,000 is slower. The cache "
    "holds canvases of 256 x 256 pixels, and is opened again by the process that wrote it. *Memory* is the peak of the "
    "process: the cache is mapped, not read. The last row is the largest size divided by the smallest: a stage that "
    "grows by more than the number of pictures scales worse than linearly. Building the largest cache is such a stage: "
    "18 GiB do not fit into the memory that was free, so that the disk sets the pace; tests also ran beside it."
)


def _input_at_scale(result: dict) -> str:
    columns = ["num_pictures", *input_at_scale.PARTS, "cache_gib", "peak_memory_gib"]
    header = ["pictures", *(f"{words}, s" for words in input_at_scale.PARTS.values()), "cache, GiB", "memory, GiB"]
    rows = [row for row in result["rows"] if "error" not in row]
    lines = [[f"{row['num_pictures']:,}", *(f"{row[column]:.2f}" for column in columns[1:])] for row in rows]
    if rows:
        lines.append([f"x {rows[-1][column] / rows[0][column]:.1f}" for column in columns])
    table = pages.table(header, lines)
    return f"\n## Input at scale\n\n{_machine(result)}\n\n{_OF_INPUT}\n\n{table}"


def draw() -> None:
    """Draws the figures of the comparisons, of how equal the backends are, and of the runtimes."""
    for file in sorted(runs.RESULTS.glob("runtimes-*.json")):
        runtimes_docs.draw(json.loads(file.read_text()), ROOT / "docs" / "results" / "runtimes.svg")
    if how_equal.load():
        how_equal.draw(ROOT / "docs" / "results" / "how_equal.svg")
    for name in COMPARISONS:
        for file in sorted(runs.RESULTS.glob(f"comparison_{name}-*.json")):
            folder = ROOT / "docs" / "results" / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with tempfile.TemporaryDirectory() as drawn:
                figures.draw_all(json.loads(file.read_text())["comparison"], Path(drawn))
                for figure in FIGURES:
                    if (Path(drawn) / f"{figure}.svg").is_file():
                        shutil.copyfile(Path(drawn) / f"{figure}.svg", folder / f"{figure}.svg")


if __name__ == "__main__":
    draw()
    (ROOT / "docs" / "results.md").write_text(render())
