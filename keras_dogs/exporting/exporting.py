"""Writes a trained classifier in another format, and keeps the file only if it answers as the run does."""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import tempfile
from pathlib import Path

from keras_dogs.errors import UserError
from keras_dogs.evaluation.calibration import calibration_of
from keras_dogs.exporting import cards
from keras_dogs.exporting import checking
from keras_dogs.exporting import digests
from keras_dogs.exporting import formats
from keras_dogs.exporting import pictures as of_check
from keras_dogs.exporting import standalone
from keras_dogs.exporting import verification
from keras_dogs.exporting import writing
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.exporting.formats import Format
from keras_dogs.runs import artifacts
from keras_dogs.runs import exports
from keras_dogs.runs.records import BACKENDS
from keras_dogs.runs.records import PROSE
from keras_dogs.runs.records import Calibration
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import children
from keras_dogs.system import ownership
from keras_dogs.system import progress
from keras_dogs.system import reading
from keras_dogs.system import terminal

LABELS = "labels.txt"
_SEPARATOR = re.compile(r"[/\\]")  # Windows takes both
# Files are written and checked on the processor: an accelerator's float32 may have fewer digits, and converters take
# the weights of one device.
_ON_PROCESSOR = {"KERAS_TORCH_DEVICE": "cpu", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}


def export_run(config: ExportConfig) -> tuple[Path, exports.Export]:
    """Writes an exported folder, verified: `export`'s procedure.

    Returns:
        The folder, and what its `export.json` says.

    Raises:
        UserError: the run, the pictures or the output cannot be used, or the format cannot hold the classifier.
        NothingWritten: the machine or the converter failed, or, as `NotEqual`, the file does not answer as the run
            does; nothing is left.
    """
    row = formats.find(config.format)
    model = artifacts.find_model(config.run)
    record = of_check.record_of(config.run)
    output = config.output or default_output(config)
    ownership.check_new(output, ownership.EXPORT)
    calibration = calibration_of(config.run)
    with (
        tempfile.TemporaryDirectory(prefix="keras_dogs_export_") as work,
        ownership.new_folder(output, ownership.EXPORT) as folder,
    ):
        found = _export(config, row, model, record, calibration, Path(work), folder)
    return output, found


def default_output(config: ExportConfig) -> Path:
    """Returns the folder that is written where `--output` is not given."""
    name = f"{config.format}-{config.quantize}" if config.quantize else config.format
    if config.run.is_dir():
        return config.run / "exports" / name
    return Path("exports") / f"{config.run.stem}-{name}"


def _export(config, row: Format, model: Path, record, calibration: Calibration, work: Path, folder: Path):
    pictures = of_check.collect(config, record, work)
    if pictures.why_random:
        progress.open_console().print(
            f"no pictures are available ({pictures.why_random}): only numbers are compared, on random pictures; give "
            "--pictures FOLDER to use real ones"
        )
    backend = _choose_backend(row, record)
    job = {
        "model": str(model),
        "format": row.name,
        "folder": str(folder),
        "work": str(work),
        "pictures": pictures.files,
        "calibration": pictures.calibration,
        "temperature": calibration.temperature or 1.0,
        "quantize": config.quantize,
    }
    _run_writing(job, backend, row, record, work)
    # Not by `read_json`: names of files need not be UTF-8.
    facts = reading.check(json.loads((work / writing.FACTS).read_text("utf-8")), writing.Facts, writing.FACTS)
    _say_unread(facts["unreadable"])
    if facts["policy"] != "float32":
        progress.open_console().print(
            f"the classifier computes in {facts['policy']}; it is exported and checked in float32"
        )
    found = _describe(config, row, record, calibration, facts) | {"model_digest": artifacts.digest_of(model)}
    (folder / exports.FILE).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    (folder / LABELS).write_text("".join(f"{name}\n" for name in facts["class_names"]), "utf-8")
    if not row.is_library:
        (folder / standalone.PROGRAM).write_text(standalone.program_of(row), "utf-8")
    reference = verification.read_reference(work / writing.REFERENCE, facts["class_names"])
    _run_checking(folder, reference.files, backend, row, work)
    verified = _verify(row, work, reference, facts["class_names"], calibration.temperature or 1.0, config, pictures)
    sums = digests.digests_of(folder, row)
    size = sum((folder / name).stat().st_size for name in sums)
    found |= {"digests": sums, "verification": {**verified, "size_bytes": size}}
    reading.check(found, exports.Export, exports.FILE)
    (folder / exports.FILE).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if row.is_library:
        (folder / cards.FILE).write_text(cards.card_of(found, record), "utf-8")
    return found


def _verify(row: Format, work: Path, reference, class_names: list[str], temperature: float, config, pictures) -> dict:
    if row.is_library:
        found = verification.verify_library(row, work, reference, class_names, pictures)
        # What is pushed tells nobody where files lie.
        return found | {"pictures": _without_folders(found["pictures"])}
    return verification.verify(work, reference, class_names, temperature, config, pictures)


def _say_unread(files: list[str]) -> None:
    if files:
        what = (
            "1 picture cannot be read and is" if len(files) == 1 else f"{len(files):,} pictures cannot be read and are"
        )
        shown = ", ".join(files[:2]) + (", ..." if len(files) > 2 else "")
        progress.open_console().print(f"{what} left out: {shown}")


def _choose_backend(row: Format, record: RunRecord | None) -> str:
    """Returns the backend that writes: the format's, or, where any can, the user's, the run's, or one at hand."""
    if row.backend:
        return row.backend
    asked = os.environ.get("KERAS_BACKEND")
    wanted = [name for name in (asked, record and record.backend, *BACKENDS) if name in BACKENDS]
    for name in wanted:
        if importlib.util.find_spec(name):
            return name
    raise UserError("no backend is installed: install one of jax, tensorflow, torch")


def _run_writing(job: dict, backend: str, row: Format, record, work: Path) -> None:
    file = work / "job.json"
    file.write_text(json.dumps(job), "utf-8")
    trained = f"; the run was trained on {PROSE[record.backend]}" if record and record.backend != backend else ""
    text = f"Writing {row.file} with {PROSE[backend]}{trained}"
    status = _run(["-m", "keras_dogs.exporting.writing", str(file)], {"KERAS_BACKEND": backend}, text, work)
    if status == 0:
        return
    if (work / writing.ERROR).is_file():
        problem = json.loads((work / writing.ERROR).read_text("utf-8"))
        raise (UserError if problem["status"] == 2 else verification.NothingWritten)(problem["error"])
    raise verification.NothingWritten(
        f"--format {row.name}: the process that writes ended with {_in_words(status, work)}"
    )


def _run_checking(folder: Path, files: list[str], backend: str, row: Format, work: Path) -> None:
    listed = work / "files.json"
    listed.write_text(json.dumps(files), "utf-8")
    program = [str(Path(checking.__file__)), str(folder), str(listed), str(work)]
    if row.is_library:
        program = [str(Path(checking.__file__).with_name("checking_library.py")), *program[1:], row.name]
    text = f"Checking it from {len(files):,} picture files" + (f" with {row.name}" if row.is_library else "")
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    status = _run(["-P", *program], settings, text, work)
    if status:
        who = row.name if row.is_library else "its runtime"
        raise verification.NotEqual(
            f"--format {row.name}: {who} cannot run what was written: {_in_words(status, work)}"
        )


def _run(arguments: list[str], settings: dict, text: str, work: Path) -> int:
    """Runs a child process, writes its output to a file, and shows progress meanwhile; returns the exit status."""
    with (work / "said.txt").open("wb") as said, progress.waiting(text) as still_there:
        child = children.start(arguments, {**os.environ, **_ON_PROCESSOR, **settings}, said)
        try:
            while True:
                with contextlib.suppress(children.StillRunning):
                    return child.wait(1)
                still_there()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()


def _in_words(status: int, work: Path) -> str:
    """Says how a child ended: the last line that it said, or the signal that ended it."""
    lines = (work / "said.txt").read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"signal {-status} (perhaps out of memory)" if status < 0 else last or f"exit status {status}"


def _describe(config, row: Format, record, calibration: Calibration, facts: writing.Facts) -> exports.Export:
    if config.quantize:  # the thresholds for sets and unfamiliar pictures only hold for the logits before quantisation
        calibration = dataclasses.replace(calibration, set_thresholds=[], strangeness_percentiles=[])
    size = facts["canvas"]["size"]
    rows, columns = size if isinstance(size, list) else (size, size)
    shape = ["batch", len(facts["class_names"])]
    given = {"name": "canvases", "dtype": "uint8", "shape": ["batch", rows, columns, 3], "layout": "NHWC, RGB"}
    names = ("logits",) if row.is_library else ("logits", "probabilities")
    found = exports.Export(
        schema_version=exports.SCHEMA_VERSION,
        format=row.name,
        file=row.file,
        quantization=config.quantize,
        run=terminal.printable(str(config.run)),
        preset=record.preset if record else "unknown",
        pretraining=record.pretraining if record else "unknown",
        family=facts["family"],
        class_names=facts["class_names"],
        canvas=facts["canvas"],
        input={"prepared_by": row.name} if row.is_library else given,
        outputs={name: {"dtype": "float32", "shape": shape} for name in names},
        temperature=calibration.temperature,
        calibration=dataclasses.asdict(calibration),
        written_by=facts["backend"],
        versions={"keras_dogs": _own_version(), **facts["versions"], **_versions_of(row)},
        data=record.config["data"] if record else {},
        seed=record.seed if record else 0,
    )
    if row.is_library:
        found |= {"notes": facts["notes"], "run": Path(found["run"]).name, "preset": _without_path(found["preset"])}
        found["data"] = {"dataset": _without_path(record.config["data"]["dataset"])} if record else {}
    return found if calibration.temperature else {**found, "why_no_temperature": calibration.why_no_temperature}


def _without_path(name: str) -> str:
    """Returns a name without the folders of this machine: what is pushed tells nobody where files lie."""
    is_address = name.split("://")[0] in ("hf", "kaggle", "gs", "http", "https")
    if is_address or not _SEPARATOR.search(name):
        return name
    if name.startswith("applications:"):  # applications:resnet50:FILE
        return ":".join(name.split(":")[:2])
    return _SEPARATOR.split(str(Path(name).resolve()))[-1]


def _without_folders(text: str) -> str:
    """Returns words in which a path is its last part."""
    first, _, last = text.partition(" of ")
    return f"{first} of {_without_path(last)}" if last else text


def _own_version() -> str:
    import keras_dogs

    return keras_dogs.__version__


def _versions_of(row: Format) -> dict[str, str]:
    found = {}
    for package in row.packages.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
