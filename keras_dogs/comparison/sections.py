"""The sections of the report of a comparison, each from the dict that `results.json` holds."""

from keras_dogs.comparison import conclusions
from keras_dogs.comparison import figures
from keras_dogs.comparison import schema
from keras_dogs.comparison.conclusions import percent
from keras_dogs.comparison.schema import Results
from keras_dogs.data.datasets import display_name
from keras_dogs.runs.records import PROSE
from keras_dogs.system.pages import block
from keras_dogs.system.pages import code
from keras_dogs.system.pages import image
from keras_dogs.system.pages import table
from keras_dogs.system.pages import text as plain


def _figure(name: str, alt: str, drawn: list[str]) -> str:
    return f"\n{image(alt, f'{figures.FOLDER}/{name}.svg')}\n" if name in drawn else ""


def introduction(found: Results, finished: list[dict]) -> str:
    """Says what was compared, and the verdicts."""
    models = ", ".join(row["model"] for row in found["models"]) or "nothing"
    backends = ", ".join(dict.fromkeys(PROSE[run["backend"]] for run in finished)) or "no backend"
    dataset = finished[0]["dataset"]["name"] if finished else "no dataset"
    text = f"# {plain(models)} on {plain(dataset)}: {backends}\n\n"
    text += "".join(f"> {plain(sentence)}\n>\n" for sentence in conclusions.headlines(found))
    text += f"\n{len(finished)} of {len(found['runs'])} runs are finished. Made on {found['date']} with\n\n"
    text += f"{block(found['made_with'])}\n## In short\n\n"
    text += "\n".join(f"- {plain(sentence)}" for sentence in conclusions.in_short(found)) + "\n"
    equal = {"time": ("time", "as long"), "flops": ("operations", "as many operations")}.get(found["budget"])
    if equal:
        what, as_much = equal
        text += f"\n**Budget:** equal {what}; each model trained for as many epochs as take {as_much} as the first.\n"
    if found["fairness"]:
        text += f"\n**Is the pair a fair one?** {found['fairness']}\n"
    text += "".join(f"\n**Note:** {plain(note)}.\n" for note in found["notes"])
    return text


def failures(found: Results) -> str:
    """Lists the runs that are missing, and why."""
    rows = [[run["name"], run["error"]] for run in found["runs"] if "error" in run]
    return "\n## Runs that are missing\n\n" + table(["run", "why"], rows) if rows else ""


def accuracy(found: Results, drawn: list[str]) -> str:
    """Shows who names more pictures correctly, and how sure that is."""
    rows = [
        [
            row["model"],
            PROSE[row["backend"]],
            len(row["seeds"]),
            percent(row["top1"]["mean"]),
            f"{percent(row['top1_interval'][0])} to {percent(row['top1_interval'][1])}",
            f"{percent(row['top1']['min'])} to {percent(row['top1']['max'])}",
            percent(row["top5"]["mean"]),
            f"{row['loss']['mean']:.3f}",
        ]
        for row in found["groups"]
    ]
    header = ["model", "backend", "seeds", "top-1", "95 % interval", "least and most of seeds", "top-5", "loss, nats"]
    text = "\n## Accuracy on the test split\n" + _figure("accuracy", "Accuracy by model and backend", drawn)
    text += "\n" + table(header, rows)
    text += (
        "\nMeans over seeds. The interval (Clopper and Pearson's; over several seeds Korn and Graubard's) shows the "
        "uncertainty from the choice of test pictures. The spread of the seeds shows the influence of luck in "
        "training.\n"
    )
    if found["between_models"]:
        text += "\n### One model against the other\n\n" + _pair_table(found)
        text += "\nOn one backend with one seed: McNemar's exact test on the pictures that only one of the two names "
        text += "correctly, and Bonett and Price's 95 % interval of the difference. A difference of two runs counts as "
        text += "significant where both say so. *Right alone*: how many pictures only the first named correctly, and "
        text += "how many only the second. These p-values are of one pair each; those at the top are adjusted for all "
        text += "tests.\n"
    return text


def _pair_table(found: Results) -> str:
    rows = [
        [
            f"{row['first']} − {row['second']}",
            PROSE[row["backend"]],
            row["seed"],
            _points(row["difference"]),
            f"{_points(row['interval'][0])} to {_points(row['interval'][1])}",
            f"{row['only_first']} / {row['only_second']}",
            f"{row['p_value']:.2g}",
            "yes" if row["significant"] else "no",
        ]
        for row in found["pairs"]
    ]
    header = [
        "difference of",
        "backend",
        "seed",
        "points",
        "95 % interval",
        "right alone",
        "p (McNemar)",
        "significant",
    ]
    return table(header, rows)


def same_on_backends(found: Results, drawn: list[str]) -> str:
    """Shows whether the backends train alike."""
    if not found["between_backends"]:
        return _figure("curves", "Training loss of every run", drawn)
    rows = [
        [
            row["model"],
            " and ".join(PROSE[name] for name in row["backends"]),
            f"{row['largest_loss_difference_in_10_steps']:.2g}",
            f"{row['largest_loss_difference']:.2g}",
            percent(row["same_answers"]),
            _points(row["difference"]),
            f"{row['adjusted_p_value']:.2g}",
            "yes" if row["significant"] else "no",
        ]
        for row in found["between_backends"]
    ]
    header = [
        "model",
        "backends",
        "largest gap of loss, 10 steps",
        "all steps",
        "same breed named",
        "points of top-1",
        "p",
        "significant",
    ]
    return (
        "\n## The same training on each backend\n"
        + _figure("curves", "Training loss of every run, backends laid over each other", drawn)
        + "\n"
        + table(header, rows)
        + "\nBatches, crops and starting weights are the same on each backend; kernels round differently, and training "
        "makes rounding grow. *Gap of loss*: the difference of the training losses of one step, nats. *p* is "
        "of accuracy: of one seed McNemar's exact test, of several a t-test over pictures and seeds, adjusted by Holm "
        "for all rows.\n"
    )


def cost(found: Results, drawn: list[str]) -> str:
    """Shows what each model and backend costs."""
    rows = [
        [
            row["model"],
            PROSE[row["backend"]],
            f"{row['train_images_per_second']['mean']:,.1f}" if row["train_images_per_second"] else "–",
            f"{row['predict_images_per_second']['mean']:,.1f}",
            f"{row['step_time_ms']['mean']:.0f}" if row["step_time_ms"] else "–",
            f"{row['first_step_s']['mean']:.1f}",
            f"{row['train_s']['mean']:.0f}",
            f"{row['total_s']['mean']:.0f}",
            f"{row['peak_memory_gib']['mean']:.1f}",
        ]
        for row in found["groups"]
    ]
    header = [
        "model",
        "backend",
        "train images/s",
        "predict images/s",
        "step, ms",
        "first step, s",
        "train, s",
        "all, s",
    ]
    text = "\n## Cost\n" + _figure("cost", "Accuracy against cost", drawn) + _figure("speed", "Speed and memory", drawn)
    text += "\n" + table([*header, "memory, GiB"], rows)
    sizes = [
        [row["model"], f"{row['num_parameters'] / 1e6:.1f}", f"{row['gflops']:.2f}" if row["gflops"] else "–"]
        for row in found["models"]
    ]
    text += "\n" + table(["model", "million parameters", "GFLOP a picture, forward"], sizes)
    text += (
        "\nMeans over seeds. Images/s are of all steps but those that compile, the step is the median one. The first "
        "step includes compilation; `all` is from the command to the end, imports and the test included. "
    )
    if any(row["backend"] == "torch" for row in found["groups"]):
        text += (
            "PyTorch goes layer by layer for the first five seconds of its steps, and of its predictions: a longer run "
            "is faster. "
        )
    return text + "Energy was not measured.\n"


def time_to_accuracy(found: Results, drawn: list[str]) -> str:
    """Shows when each model reached which accuracy."""
    thresholds = [
        threshold
        for threshold in (found["groups"][0]["seconds_to"] if found["groups"] else {})
        if any(row["seconds_to"][threshold] for row in found["groups"])
    ]
    if not thresholds:
        return ""
    rows = [
        [row["model"], PROSE[row["backend"]]]
        + [f"{row['seconds_to'][each]['mean']:.0f}" if row["seconds_to"][each] else "–" for each in thresholds]
        for row in found["groups"]
    ]
    header = ["model", "backend", *(f"{float(threshold):.0%}" for threshold in thresholds)]
    return (
        "\n## Time to accuracy\n"
        + _figure("time_to_accuracy", "Validation accuracy against time", drawn)
        + "\nSeconds from the command, start-up included, until the first epoch, or the probe before it, ended with at "
        "least this top-1 accuracy on validation; means over seeds, a dash where one of them did not reach it.\n\n"
        + table(header, rows)
    )


def breeds(found: Results, drawn: list[str]) -> str:
    """Shows the breeds on which the models differ most."""
    rows = found["classes"]
    if not rows:
        return ""
    first, second = (row["model"] for row in found["models"][:2])
    ends = rows[:5] + [row for row in rows[-5:] if row not in rows[:5]]
    cells = [
        [
            display_name(row["class"]),
            row["pictures"],
            percent(row["first"]),
            percent(row["second"]),
            _points(row["difference"]),
        ]
        for row in ends
    ]
    won, lost = (sum(sign * row["difference"] > 0 for row in rows) for sign in (1, -1))
    return (
        f"\n## Breed by breed\n\n{plain(first)} is ahead on {won} breeds, {plain(second)} on {lost}, of {len(rows)}. "
        "With so few pictures a breed, single breeds are mostly luck.\n"
        + _figure("classes", "Difference by breed", drawn)
        + "\n"
        + table(["breed", "pictures", first, second, "points"], cells)
        + _figure("confusion", "Confusion matrices", drawn)
    )


def example_pictures(found: Results, shown: dict[str, str]) -> str:
    """Shows pictures on which the models disagree."""
    if not found["pictures"]:
        return ""
    rows = [
        [
            image(display_name(row["class"]), shown[row["picture"]])
            if row["picture"] in shown
            else code(row["picture"]),
            display_name(row["class"]),
            row["only_right"],
            display_name(row["taken_for"]),
        ]
        for row in found["pictures"]
    ]
    header = ["picture", "is a", "only right", "the other says"]
    return "\n## Pictures that only one gets right\n\n" + table(header, rows)


def calibration(found: Results, drawn: list[str]) -> str:
    """Shows whether probabilities mean what they say."""
    rows = [
        [row["model"], row["num_runs"], percent(row["calibration_error"]["mean"])]
        + [f"{percent(row['calibration_error']['min'])} to {percent(row['calibration_error']['max'])}"]
        for row in found["models"]
    ]
    return (
        "\n## Calibration\n"
        + _figure("calibration", "Accuracy against confidence", drawn)
        + "\n"
        + table(["model", "runs", "expected calibration error", "least and most"], rows)
        + "\n15 bins of confidence (arXiv 1706.04599); no temperature was fitted.\n"
    )


def seen(found: Results) -> str:
    """Lists what the weights were trained on before."""
    rows = [[row["model"], code(row["preset"]), row["pretraining"]] for row in found["models"]]
    return "\n## What the weights had seen before\n\n" + table(["model", "preset", "pretrained on"], rows)


def protocol(finished: list[dict]) -> str:
    """Says how the runs were made and scored."""
    if not finished:
        return ""
    data = finished[0]["dataset"]
    versions = {}
    for run in finished:
        for name, version in run["versions"].items():
            versions.setdefault(name, {})[version] = None  # each once, in this order
    listed = ", ".join(f"{name} {' and '.join(each)}" for name, each in sorted(versions.items()))
    unread = (
        f" that can be read ({data['num_unreadable']:,} of the dataset cannot)" if data.get("num_unreadable") else ""
    )
    recipes = dict.fromkeys(f"{run['model']}: {run['recipe']}" for run in finished)
    return (
        f"\n## Protocol\n\n- **Data**: {plain(data['name'])}, {data['num_classes']} classes: "
        f"{data['num_train']:,} train, {data['num_validation']:,} validation and {data['num_test']:,} test pictures. "
        + ("The epoch was chosen on validation" if data["num_validation"] else "The last epoch was kept")
        + f"; the test split was scored once, every picture of it{unread}.\n"
        + "".join(f"- **Recipe** of {plain(recipe)}\n" for recipe in recipes)
        + f"- **Device**: {plain('; '.join(dict.fromkeys(run['device'] for run in finished)))}\n"
        + f"- **Versions**: {plain(listed)}\n"
    )


def table_of_runs(found: Results) -> str:
    """Lists the runs, with their folders."""
    rows = [
        [run["name"], percent(run["test"]["top1_accuracy"]), run["best_epoch"] or "the probe", code(run["folder"])]
        for run in found["runs"]
        if "error" not in run
    ]
    commands = "\n".join(run["command"] for run in found["runs"] if run["command"])
    text = "\n## Every run\n\n" + (table(["run", "top-1", "epoch kept", "folder"], rows) if rows else "")
    text += (
        f"\nMade with these; the command at the top of this page makes what is missing:\n\n{block(commands)}"
        if commands
        else ""
    )
    return text + f"\nEvery figure of this page is in `{schema.FILE}`.\n"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
