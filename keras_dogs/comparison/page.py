"""The report of a comparison: `report.md`, `report.html`, figures and `results.json`, all from one dict."""

import json
import shutil
import tempfile
from pathlib import Path

from keras_dogs.comparison import figures
from keras_dogs.comparison import plan
from keras_dogs.comparison import results
from keras_dogs.comparison import schema
from keras_dogs.comparison import sections
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.errors import UserError
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import files
from keras_dogs.system import network
from keras_dogs.system import ownership
from keras_dogs.system import pages
from keras_dogs.system import reading

PICTURES, LOGS = "pictures", "logs"
_THUMBNAIL = 112
_REPORT = (schema.FILE, "report.md", "report.html", f"{LOGS}/*.log")  # runs have manifests of their own


def is_of_earlier_version(folder: Path) -> bool:
    """Returns whether a folder without a manifest holds a comparison, finished or begun."""
    try:
        schema.read(folder / schema.FILE)
        return True
    except UserError:
        runs = list((folder / plan.RUNS).glob("*"))
        return bool(runs) and all(artifacts.is_finished(run) or artifacts.is_unfinished(run) for run in runs)


def claim(folder: Path) -> None:
    """Marks a folder as a comparison's; of one of an earlier version, the figures that it drew are ours, too."""
    if ownership.kind_of(folder) is None:
        drawn = [f"{figures.FOLDER}/{name}{suffix}.svg" for name in figures.NAMES for suffix in figures.THEMES]
        drawn += [f"{PICTURES}/{number}.jpg" for number in range(2 * results.NUM_PICTURES)]
        was_there = is_of_earlier_version(folder)
        ownership.claim(folder, ownership.COMPARE, (*_REPORT, *(drawn if was_there else ())))


def write_report(found: schema.Results, folder: Path) -> None:
    """Writes the report of what `keras_dogs.comparison.results.collect` gave into a comparison's folder.

    Args:
        found: `schema.Results`.
        folder: Path. An earlier report of ours there is replaced; nothing else is.
    """
    found = reading.check(found, schema.Results, f"{folder / schema.FILE}")
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder)
    for stale in folder.glob(f"{files.TEMPORARY}*"):  # of a report that was killed
        shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=folder) as made:
        drawn = figures.draw_all(found, Path(made) / figures.FOLDER)
        shown = _save_pictures(found, Path(made))
        text = report(found, drawn, shown)
        contents = {
            schema.FILE: json.dumps(found, indent=1) + "\n",
            "report.md": text,
            "report.html": pages.to_html(text, Path(made), "ViT and ResNet, JAX, TensorFlow and PyTorch"),
        }
        for name, content in contents.items():
            (Path(made) / name).write_text(content, "utf-8")
        _replace(folder, Path(made))


def _replace(folder: Path, made: Path) -> None:
    """Puts the files of a report in place of those of the one before."""
    before = ownership.listed(folder)
    names = [path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()]
    ownership.check_replaceable(folder, names)
    ownership.claim(folder, ownership.COMPARE, (*before, *names))
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (made / name).replace(folder / name)
    for name in before:
        if name.startswith((f"{figures.FOLDER}/", f"{PICTURES}/")) and name not in names:
            (folder / name).unlink(missing_ok=True)
    ownership.claim(folder, ownership.COMPARE, (*_REPORT, *names))


def report(found: schema.Results, drawn: list[str], shown: dict[str, str]) -> str:
    """Returns the text of the report, as Markdown.

    Args:
        found: `schema.Results` of `keras_dogs.comparison.results.collect`.
        drawn: list of str. Figures that there are.
        shown: dict of a test picture's name to its thumbnail, below the report's folder.
    """
    finished = [run for run in found["runs"] if "error" not in run]
    parts = [sections.introduction(found, finished), sections.failures(found)]
    if finished:
        parts += [
            sections.accuracy(found, drawn),
            sections.same_on_backends(found, drawn),
            sections.cost(found, drawn),
            sections.time_to_accuracy(found, drawn),
            sections.breeds(found, drawn),
            sections.example_pictures(found, shown),
            sections.calibration(found, drawn),
            sections.seen(found),
        ]
    parts += [sections.protocol(finished), sections.table_of_runs(found)]
    return "\n".join(part for part in parts if part)


def _save_pictures(found: schema.Results, folder: Path) -> dict[str, str]:
    """Saves thumbnails of the pictures that are shown, where the dataset is at hand."""
    names = [row["picture"] for row in found["pictures"]]
    run = next((run for run in found["runs"] if "error" not in run), None)
    if not names or run is None:
        return {}
    try:
        config = RunRecord.load(Path(run["folder"]) / artifacts.RECORD).config["data"]
        with network.offline():  # nobody asked for a download of pictures to look at
            test = load_dataset(config["dataset"], run["seed"], 0, config.get("data_dir")).test
    except (OSError, UserError, ImportError):
        return {}
    places = {name: place for place, name in enumerate(test.names)}
    (folder / PICTURES).mkdir(exist_ok=True)
    shown = {}
    for number, name in enumerate(name for name in names if name in places):
        try:
            picture = test.read(places[name]).convert("RGB")
        except UnreadablePicture:
            continue
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        shown[name] = f"{PICTURES}/{number}.jpg"
        picture.save(folder / shown[name], quality=85)
    return shown
